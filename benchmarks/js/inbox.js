const inbox = await until("an inbox", () => ownAccount() && inboxOf(ownAccount()));
const held = () => new Set(headersOf(inbox).map(header => header.messageId));
await until("the newest message", () => held().has(task.newest));
return { messages: held().size };
