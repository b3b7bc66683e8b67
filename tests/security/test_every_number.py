"""Each of the ninety named bad inputs is a row of a table here, or has its test where what it attacks is tested."""

from __future__ import annotations

import re
from pathlib import Path

from tests.security import test_bad_inputs  # noqa: F401  # adds its rows
from tests.security.table import TABLE

TESTS = Path(__file__).parents[1]
ELSEWHERE = {
    "B16": "scenarios/test_scenarios_delivering.py::test_a_forwarded_link_shows_the_title_and_needs_the_code",
    "B17": "web/test_codes.py::test_digits_are_good_for_their_link_ten_minutes_and_five_tries",
    "B18": "web/test_codes.py::test_digits_are_good_for_their_link_ten_minutes_and_five_tries",
    "B19": "web/test_decisions.py::test_check_50_spellings_of_one_token_are_one_link",
    "B20": "web/test_decisions.py::test_check_50_spellings_of_one_token_are_one_link",
    "B23": "web/test_browser.py::test_check_43_a_scanner_that_runs_scripts_decides_nothing",
    "B28": "web/test_decisions.py::test_check_44_a_form_needs_its_own_request_and_person",
    "B29": "channels/email/test_links_in_mails.py::test_links_survive_key_rotation_until_their_key_is_removed",
    "B36": "test_outgoing.py::test_no_spelling_of_this_machine_is_called",
    "B37": "test_outgoing.py::test_no_spelling_of_this_machine_is_called",
    "B38": "test_outgoing.py::test_no_spelling_of_this_machine_is_called",
    "B39": "test_outgoing.py::test_private_addresses_are_not_public",
    "B40": "test_outgoing.py::test_private_addresses_are_not_public",
    "B41": "test_outgoing.py::test_private_addresses_are_not_public",
    "B42": "test_outgoing.py::test_private_addresses_are_not_public",
    "B43": "test_outgoing.py::test_private_addresses_are_not_public",
    "B44": "test_outgoing.py::test_redirects_are_not_followed",
    "B45": "test_outgoing.py::test_an_address_that_was_not_checked_is_not_connected_to",
    "B46": "test_outgoing.py::test_no_spelling_of_this_machine_is_called",
    "B47": "config/test_broken_files.py",
    "B48": "approvals/test_templates.py::test_loading_refuses",
    "B49": "approvals/test_templates.py::test_values_are_never_rendered_as_templates",
    "B50": "approvals/test_templates.py::test_loading_refuses",
    "B51": "approvals/test_templates.py::test_loading_refuses",
    "B52": "approvals/test_templates.py::test_loading_refuses",
    "B77": "web/test_sessions.py::test_a_session_ends_when_its_person_is_known_no_more",
    "B78": "web/test_codes.py::test_digits_are_good_for_their_link_ten_minutes_and_five_tries",
    "B79": "web/test_sign_in_by_others.py::test_an_answer_counts_once_and_in_its_own_browser",
    "B80": "web/test_sign_in_by_others.py::test_a_forged_answer_signs_nobody_in",
    "B81": "web/test_sign_in_by_others.py::test_a_forged_answer_signs_nobody_in",
    "B82": "web/test_sign_in_by_others.py::test_only_a_trusted_proxy_says_who_has_signed_in",
    "B84": "web/test_sessions.py::test_a_copied_cookie_ends_everywhere_with_its_sign_out",
    "B85": "web/test_decisions.py::test_the_requester_cannot_approve_their_own_request",
    "B86": "channels/slack/test_slack_checks.py::test_a_member_who_has_left_the_group_is_refused",
}


def test_each_number_has_its_test() -> None:
    of_slack = re.findall(r"\bB\d\d\b", (TESTS / "security/test_bad_slack_and_text.py").read_text("utf-8"))
    found = {row.number for row in TABLE} | set(of_slack) | ELSEWHERE.keys()
    assert sorted({f"B{number:02}" for number in range(1, 91)} - found) == []


def test_each_test_elsewhere_exists() -> None:
    for place in ELSEWHERE.values():
        file, _, name = place.partition("::")
        assert f"def {name}" in (TESTS / file).read_text("utf-8"), place
