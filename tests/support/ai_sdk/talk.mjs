// Talks to the chat with the AI SDK's own client: `node talk.mjs URL CHAT`. Prints what it saw as JSON.
import { Chat } from "@ai-sdk/react";
import { DefaultChatTransport, lastAssistantMessageIsCompleteWithApprovalResponses } from "ai";

const [url, id] = process.argv.slice(2);
const transport = new DefaultChatTransport({ api: `${url}/api/chat` });
const errors = [], data = [];
const chat = (messages = []) =>
  new Chat({
    id, transport, messages,
    sendAutomaticallyWhen: lastAssistantMessageIsCompleteWithApprovalResponses,
    onError: (error) => errors.push(error.message),
    onData: (part) => data.push([part.type, part.data.state, part.data.by, part.data.via]),
  });
const parts = (of) =>
  of.messages.flatMap((message) => message.parts.map((part) => [message.role, part.type, part.state, part.output ?? part.text]));
const until = async (is) => {
  for (let tries = 0; !is(); tries++) {
    if (tries > 400) throw new Error("it has not happened");
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
};
const tools = (of) => (of.messages.at(-1)?.parts ?? []).filter((part) => part.toolCallId);

const first = chat();
await first.sendMessage({ text: "Book LH 441 for Ann Ode and LH 442 for Bo Lund" });
const asked = parts(first);

const reloaded = chat(first.messages.slice(0, 1));
await reloaded.resumeStream();
const resumed = parts(reloaded);

const [one, two] = tools(first);
await first.addToolApprovalResponse({ id: one.approval.id, approved: true, reason: "window" });
await first.addToolApprovalResponse({ id: two.approval.id, approved: false, reason: "too dear" });
await until(() => first.status === "ready" && tools(first).every((part) => part.state.startsWith("output-")) && tools(first).length === 3);
const decided = parts(first);

const over = chat(first.messages.slice(0, 1));
await over.resumeStream();
console.log(JSON.stringify({ asked, resumed, decided, after: parts(over), messages: first.messages.length, errors, data, ids: tools(first).map((part) => part.toolCallId) }));
process.exit(0);
