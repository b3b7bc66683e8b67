// An IMAP server that we did not write, with one mailbox: `node imap_judge.js MAIL …`. Prints its port.
const { createRequire } = require("module");
const { readFileSync } = require("fs");
const serve = createRequire(`${__dirname}/node/package.json`)("hoodiecrow-imap");

const messages = process.argv.slice(2).map((file) => ({ raw: readFileSync(file, "latin1") }));
const server = serve({ storage: { INBOX: { messages } }, users: { bounces: { password: "of-a-test" } } });
server.listen(0, "127.0.0.1", () => console.log(server.server.address().port));
