"""Refusals as mail servers really word them, and who is to blame for each.

The texts are those that the services document or their users report; addresses and hosts in them are made up.
"""

from __future__ import annotations

import pytest

from approvals_bot.channels.email.blame import Blame, Command, blame_for, blame_for_report

ACCOUNT: list[tuple[Command, str]] = [
    # Gmail and Google Workspace
    ("text", "550 5.4.5 Daily user sending limit exceeded. For more information on Gmail sending limits go to"),
    ("text", "550 5.4.5 Daily SMTP relay limit exceeded for user. For more information on SMTP relay sending limits"),
    ("login", "535 5.7.8 Username and Password not accepted. For more information, go to"),
    ("login", "534 5.7.9 Application-specific password required. For more information, go to"),
    ("login", "534 5.7.14 Please log in via your web browser and then try again."),
    ("sender", "530 5.7.0 Authentication Required. For more information, go to"),
    ("sender", "530 5.7.0 Must issue a STARTTLS command first"),
    ("recipient", "550 5.7.0 Mail relay denied."),
    ("text", "550 5.7.1 Daily SMTP relay limit exceeded for customer."),
    ("text", "550 5.7.26 This mail has been blocked because the sender is unauthenticated."),
    (
        "text",
        "550 5.7.28 Our system has detected an unusual rate of unsolicited mail from your IP.",
    ),
    # Exchange Online
    ("text", "554 5.2.252 SendAsDenied; bot@acme.eu not allowed to send as approvals@acme.eu"),
    ("text", "554 5.2.0 STOREDRV.Submission.Exception:SendAsDeniedException.MapiExceptionSendAsDenied; Failed"),
    ("text", "550 5.7.60 SMTP; Client does not have permissions to send as this sender"),
    ("sender", "530 5.7.57 Client not authenticated to send mail."),
    ("sender", "501 5.1.7 Invalid address"),
    ("text", "550 5.1.8 Access denied, bad outbound sender."),
    ("text", "550 5.1.90 Your message can't be sent because you've reached your daily limit for message recipients"),
    ("login", "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant."),
    ("login", "535 5.7.3 Authentication unsuccessful [AM6PR0732CA0009.eurprd07.prod.outlook.com]"),
    ("login", "550 5.7.30 Basic authentication is not supported for Client Submission."),
    ("recipient", "550 5.7.64 TenantAttribution; Relay Access Denied"),
    ("text", "550 5.7.501 Access denied, spam abuse detected."),
    ("recipient", "550 5.7.606 Access denied, banned sending IP [192.0.2.1]"),
    ("text", "550 5.7.705 Access denied, tenant has exceeded threshold"),
    ("text", "550 5.7.708 Access denied, traffic not accepted from this IP"),
    # Amazon SES
    ("text", "554 Message rejected: Email address is not verified. The following identities failed the check"),
    ("text", "554 Message rejected: Sending suspended for this account."),
    ("login", "535 Authentication Credentials Invalid"),
    ("login", "530 Authentication required"),
    # SendGrid, Mailgun, Postmark, Zoho, OVH
    ("text", "550 Unauthenticated senders not allowed"),
    ("text", "550 Maximum credits exceeded"),
    ("text", "550 5.7.1 Message rate limit exceeded, try again later"),
    ("text", "554 5.7.1 Email sending quota exceeded"),
    ("text", "550 5.4.6 Unusual sending activity detected. Your account has been blocked. Please try after some time"),
    ("text", "554 You exceeded the daily sending limit"),
    # Postfix and Exim
    ("recipient", "554 5.7.1 <ann@acme.eu>: Relay access denied"),
    ("recipient", "550 relay not permitted"),
    ("recipient", "553 5.7.1 <approvals@acme.eu>: Sender address rejected: not owned by user bot"),
    ("recipient", "550 Sender verify failed"),
    ("recipient", "554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org"),
    ("login", "554 5.7.1 No SMTP service here"),
    ("sender", "550 5.1.0 Address rejected."),
    ("recipient", "550 5.1.0 <approvals@acme.eu>: Sender address rejected: User unknown in virtual mailbox table"),
    ("recipient", "550 rejected because 192.0.2.1 is in a black list at bl.spamcop.net"),
    ("recipient", "550 192.0.2.1 is blacklisted at dnsbl.sorbs.net"),
    ("recipient", "550 Rejected: 192.0.2.1 listed at psbl.surriel.com"),
    ("recipient", "550 SPF check failed for acme.eu"),
    ("recipient", "550 Please see http://www.open-spf.org/Why?s=mfrom;ip=192.0.2.1"),
    ("text", "550 Rejected due to DMARC policy of acme.eu"),
    ("recipient", "550 Access denied - Invalid HELO name (See RFC2821 4.1.1.1)"),
    ("recipient", "550 SMTP AUTH is required for message submission on port 587"),
    ("recipient", "550 Domain acme.eu has exceeded the max emails per hour (500/500 (100%)) allowed."),
    ("recipient", "553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)"),
    # Mimecast, Proofpoint
    ("recipient", "550 csi.mimecast.org Poor Reputation Sender."),
    ("recipient", "550 Submitter failed to authenticate"),
    ("recipient", "554 Blocked - see https://ipcheck.proofpoint.com/?ip=192.0.2.1"),
    ("text", "550 The from address does not match a verified Sender Identity."),
]
MESSAGE: list[tuple[Command, str]] = [
    ("text", "554 5.7.1 Message content rejected, id=04-12"),
    ("text", "550 5.7.1 This message violates acme.eu email policy."),
    ("text", "550 5.7.1 Our system has detected that this message is likely unsolicited mail."),
    ("text", "554 5.7.9 Message not accepted for policy reasons."),
    ("text", "552 5.7.0 This message was blocked because its content presents a potential security issue."),
    ("text", "550 5.7.1 TRANSPORT.RULES.RejectMessage; the message was rejected by organization policy"),
    ("text", "552 5.3.4 Your message exceeded Google's message size limits."),
    ("sender", "552 5.3.4 Message size exceeds fixed maximum message size"),
    ("sender", "552 Message size exceeds fixed maximum message size"),
    ("text", "552 Message exceeds maximum fixed size"),
    ("text", "550 Message too large"),
    ("sender", "552 Refused"),
    ("text", "554 rejected due to spam content"),
    ("text", "554 Transaction failed"),
    ("recipient", "503 5.5.1 Bad sequence of commands"),
    ("text", "500 5.5.2 Syntax error"),
    ("text", "550 Administrative prohibition"),
    ("text", "550 Rejected by header based Anti-Spoofing policy: approvals@acme.eu"),
    ("text", "550 Email rejected due to security policies"),
    ("text", "550 This message was classified as SPAM and may not be delivered"),
    ("text", "550 Message contains a virus or other harmful content"),
    ("text", "550 Blocked by local filter rules"),
    ("text", "552 sorry, that message size exceeds my databytes limit (#5.3.4)"),
]
RECIPIENT: list[tuple[Command, str]] = [
    ("recipient", "550 5.1.1 The email account that you tried to reach does not exist."),
    ("recipient", "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient ann@acme.eu not found by SMTP address lookup"),
    ("recipient", "550 5.4.1 Recipient address rejected: Access denied."),
    ("recipient", "550 5.4.4 Invalid arguments"),
    ("recipient", "550 5.2.1 The email account that you tried to reach is disabled."),
    ("recipient", "552 5.2.2 The email account that you tried to reach is over quota."),
    (
        "text",
        "554 5.2.2 mailbox full; STOREDRV.Deliver.Exception:QuotaExceededException.MapiException",
    ),
    ("recipient", "550 Mailbox quota exceeded / user sending limit does not matter"),
    ("recipient", "550 User unknown"),
    ("recipient", "550 scripted fault"),
    ("recipient", "551 5.1.6 Recipient has moved"),
    ("recipient", "556 5.1.10 Domain of sender address does not accept mail"),
    ("text", "550 5.7.124 RESOLVER.RST.RestrictedToGroupPermission; not in the allowed senders list"),
    ("text", "550 5.7.129 RESOLVER.RST.RestrictedToRecipientsPermission; not authorized to send to recipient"),
    ("text", "550 5.7.133 RESOLVER.RST.SenderNotAuthenticatedForGroup; authentication required; Delivery restriction"),
    ("text", "550 5.7.134 RESOLVER.RST.SenderNotAuthenticatedForMailbox; authentication required"),
    ("text", "550 5.7.136 RESOLVER.RST.SenderNotAuthenticatedForMailUser; authentication required"),
    ("text", "550 5.7.1 RESOLVER.RST.AuthRequired; authentication required"),
    ("text", "550 5.6.7 Non-ASCII addresses not permitted"),
    ("recipient", "550 5.5.0 Requested action not taken: mailbox unavailable (S2017062302)."),
    ("recipient", "554 delivery error: dd This user doesn't have a yahoo.com account (ann@yahoo.com) [0]"),
    ("text", "554 delivery error: dd Not a valid recipient - atlas104.free.mail.gq1.yahoo.com"),
    ("text", "554 30 Sorry, your message to ann@yahoo.com cannot be delivered. This mailbox is disabled (554.30)."),
    ("recipient", "554 Recipient address rejected: mailbox over quota"),
    ("recipient", "550 ann@acme.eu has exceeded its quota"),
    ("recipient", "550 This account has been disabled or discontinued [#102]"),
    ("recipient", "550 Account of the recipient is disabled"),
    ("text", "554 Message rejected: Address is on the suppression list"),
    ("recipient", "550 ann@acme.eu... User not listed in Domino Directory"),
    ("recipient", "550 sorry, no mailbox here by that name (#5.1.1)"),
]
NOBODY: list[tuple[Command, str]] = [
    ("recipient", "450 4.2.0 <ann@acme.eu>: Recipient address rejected: Greylisted, see"),
    ("recipient", "451 4.7.1 Greylisting in action, please come back later"),
    ("recipient", "451 4.7.500 Server busy. Please try again later from [192.0.2.1]."),
    ("recipient", "550 5.2.1 The user you are trying to contact is receiving mail at a rate that prevents additional"),
    ("recipient", "550 5.2.122 RESOLVER; the recipient has exceeded their limit for the number of messages per hour"),
    ("text", "454 Throttling failure: Daily message quota exceeded."),
    ("text", "550 4.4.7 QUEUE.Expired; message expired"),
    ("login", "454 4.7.0 Too many login attempts, please try again later."),
    ("login", "421 4.7.0 Try again later, closing connection."),
]
ALL = [
    (command, reply, blame)
    for blame, replies in (("account", ACCOUNT), ("message", MESSAGE), ("recipient", RECIPIENT), ("nobody", NOBODY))
    for command, reply in replies
]


@pytest.mark.check(55)
def test_each_reply_says_whose_fault_it_is() -> None:
    wrong = [
        (reply, blame, found)
        for command, reply, blame in ALL
        if (found := blame_for(int(reply[:3]), reply[4:], command)) != blame
    ]
    assert not wrong


def test_a_report_says_whose_fault_it_is() -> None:
    reports: list[tuple[str, str, Blame]] = [
        ("5.1.1", "550 5.1.1 no such user", "recipient"),
        ("5.1.1", "", "recipient"),
        ("5.0.0", "no such user here", "recipient"),
        ("4.4.7", "delivery temporarily suspended: connection timed out", "recipient"),  # the relay has given up
        ("5.4.5", "", "account"),
        ("5.0.0", "550 5.7.708 Access denied, traffic not accepted from this IP", "account"),
        ("5.7.1", "550 5.7.1 this message is likely unsolicited mail", "message"),
        ("5.7.133", "550 5.7.133 RESOLVER.RST.SenderNotAuthenticatedForGroup", "recipient"),
        ("", "", "recipient"),
    ]
    assert [(status, words, blame_for_report(status, words)) for status, words, _ in reports] == reports


def test_no_text_takes_long_to_judge() -> None:
    for text in ("account " * 4_000, "exceed the " * 4_000, "5.7.1 client host " * 4_000, "a" * 64_000):
        assert blame_for(554, text, "text") in ("account", "message")
