"""What people read instead of Slack's error codes, on cards, pages and in mails. The log has the codes."""

from __future__ import annotations

from approvals_bot.approvals.notifications import TOO_LATE

REVOKED = "Slack refuses the app's token; an operator has to reinstall the app"
NO_CHANNEL = "there is no such channel, or the app isn't in it; invite it there"
OUTSIDER = "guests, partners and deactivated accounts can't decide in Slack"
NO_PERSON = "no member of this Slack workspace has this address"

REASONS = {
    "account_inactive": REVOKED,
    "app_access_restricted": REVOKED,
    "invalid_auth": REVOKED,
    "not_authed": REVOKED,
    "not_allowed_token_type": REVOKED,
    "team_access_not_granted": REVOKED,
    "token_expired": REVOKED,
    "token_revoked": REVOKED,
    "ekm_access_denied": "your organization's keys keep the app from writing there",
    "missing_scope": "the app lacks a permission; an operator can see which with `approvals-bot doctor`",
    "no_permission": "the app lacks a permission there",
    "access_denied": "the app lacks a permission there",
    "channel_not_found": NO_CHANNEL,
    "not_in_channel": NO_CHANNEL,
    "is_archived": "the channel is archived",
    "channel_is_archived": "the channel is archived",
    "is_inactive": "the channel is archived",
    "restricted_action": "this workspace's settings don't let the app write there",
    "posting_to_channel_denied": "this workspace's settings don't let the app write there",
    "invalid_user_combination": "this workspace's settings don't let the app write to them",
    "restricted_action_non_threadable_channel": "the channel takes no replies in threads",
    "restricted_action_thread_locked": "the message's thread is locked",
    "restricted_action_read_only_channel": "this workspace's settings don't let the app write there",
    "restricted_action_thread_only_channel": "this workspace's settings don't let the app write there",
    "message_not_found": "the message has been deleted",
    "cannot_reply_to_message": "the message has been deleted",
    "cant_update_message": "the message can't be changed any more",
    "edit_window_closed": "the message can't be changed any more",
    "thread_not_found": "the message has been deleted",
    "too_late": TOO_LATE,  # our own code
    "outsider": OUTSIDER,  # our own code
    "users_not_found": NO_PERSON,
    "user_not_found": "there is no such person in Slack",
    "user_not_visible": "there is no such person in Slack",
    "user_disabled": "their Slack account is deactivated",
    "cannot_dm_bot": "this is an app's account, which reads no messages",
    "messages_tab_disabled": "the app's messages are switched off",
    "msg_too_long": "the message is too long for Slack",
    "msg_blocks_too_long": "the message is too long for Slack",
    "invalid_blocks": "Slack doesn't accept the message",
    "no_such_subteam": "no such group",
    "subteam_not_found": "no such group",
    "plan_upgrade_required": "this workspace's plan has no user groups",
    "ratelimited": "Slack asks us to wait",
    "message_limit_exceeded": "this workspace has sent more messages than its plan allows",
    "function_execution_not_found": "Slack's workflow is gone",
    "parameter_validation_failed": "the step has other outputs in Slack; paste the manifest again",
}
"""Each code that we have met or that Slack documents for our calls."""

REFUSED = "Slack refuses it; the service's log says why"
LATER = "Slack can't be reached, or asks us to try later"
LOST = "Slack didn't answer, so it may have arrived"
QUEUED = "it waits for its turn"


def reason_of(code: str, otherwise: str) -> str:
    """Return the words for a code; `otherwise` for one that isn't in the table."""
    return REASONS.get(code, otherwise)
