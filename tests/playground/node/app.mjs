// A real Bolt for JavaScript app, pointed at the stand-in by slackApiUrl. It prints one line of JSON per thing it sees.
import bolt from "@slack/bolt";

const say = (line) => console.log(JSON.stringify(line));
const app = new bolt.App({
  token: process.env.BOT_TOKEN,
  signingSecret: process.env.SIGNING_SECRET,
  logLevel: "error",
  clientOptions: { slackApiUrl: process.env.API_URL, retryConfig: { retries: 0 } },
});
const plain = (text) => ({ type: "plain_text", text });

app.action("approve", async ({ ack, body, respond, client }) => {
  await ack();
  const updated = await client.chat.update({
    channel: body.channel.id,
    ts: body.message.ts,
    text: "Approved",
    blocks: [{ type: "section", text: plain(`Approved by ${body.user.id}`) }],
  });
  await respond({ text: "Counted.", replace_original: false });
  say({ saw: "approve", user: body.user.id, value: body.actions[0].value, ok: updated.ok });
});

app.action("reject", async ({ ack, body, client }) => {
  await ack();
  const element = { type: "plain_text_input", action_id: "comment" };
  const opened = await client.views.open({
    trigger_id: body.trigger_id,
    view: {
      type: "modal",
      callback_id: "reason",
      title: plain("Reject"),
      submit: plain("Reject"),
      blocks: [{ type: "input", block_id: "why", label: plain("Why?"), element }],
    },
  });
  say({ saw: "reject", view: opened.view.id });
});

app.view("reason", async ({ ack, view }) => {
  const comment = view.state.values.why.comment.value;
  if (comment.length < 5) {
    await ack({ response_action: "errors", errors: { why: "Say a little more." } });
  } else {
    await ack();
    say({ saw: "reason", comment });
  }
});

app.command("/approve", async ({ ack, command }) => ack(`You typed ${command.text}`));

app.event("app_home_opened", async ({ event, client }) => {
  const published = await client.views.publish({
    user_id: event.user,
    view: { type: "home", blocks: [{ type: "header", text: plain("Waiting for you") }] },
  });
  say({ saw: "home", ok: published.ok });
});

await app.start({ port: Number(process.env.PORT), host: "127.0.0.1" });

const { client } = app;
const posted = await client.chat.postMessage({
  channel: "#deploys",
  text: "Deploy?",
  metadata: { event_type: "card", event_payload: { delivery_id: "d1" } },
  blocks: [
    {
      type: "actions",
      elements: [
        { type: "button", action_id: "approve", text: plain("Approve"), value: "hook_1", style: "primary" },
        { type: "button", action_id: "reject", text: plain("Reject") },
      ],
    },
  ],
});
const history = await client.conversations.history({ channel: posted.channel, include_all_metadata: true });
const found = await client.users.lookupByEmail({ email: "ann@acme.eu" });
const groups = await client.usergroups.list({ include_users: true });
const direct = await client.conversations.open({ users: found.user.id });
let refused = null;
try {
  await client.chat.postMessage({ channel: "#nowhere", text: "x" });
} catch (error) {
  refused = error.data.error;
}
say({
  saw: "start",
  ts: posted.ts,
  metadata: history.messages[0].metadata.event_payload,
  user: found.user.id,
  members: groups.usergroups[0].users,
  direct: direct.channel.id,
  refused,
});
