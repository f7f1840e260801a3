// Part of every script: looks for things until the task's deadline.  Wrapped by demo/inside.py.
const { MailServices } = ChromeUtils.importESModule("resource:///modules/MailServices.sys.mjs");
const { setTimeout } = ChromeUtils.importESModule("resource://gre/modules/Timer.sys.mjs");
const sleep = ms => new Promise(r => setTimeout(r, ms));
const end = Date.now() + task.deadline_s * 1000;
async function until(what, look) {
  for (;;) {
    const found = await look();
    if (found) { return found; }
    if (Date.now() > end) { throw new Error("not in time: " + what); }
    await sleep(250); // looking costs the program that is looked at
  }
}
const mainWindow = () => Services.wm.getMostRecentWindow("mail:3pane");
const about3Pane = () => mainWindow()?.document.getElementById("tabmail")?.currentAbout3Pane;
const ownAccount = () => MailServices.accounts.accounts.find(a => a.incomingServer.type == "imap");
const inboxOf = account => account.incomingServer.rootFolder.getFolderWithFlags(0x1000);
const headersOf = folder => [...folder.messages];
const subjectOf = header => header.mime2DecodedSubject;

const BAR = "notification-message";
const SHEETS = "dialog[open], .dialogBox, account-hub-container, .in-app-notification-container";
const QUIET = ["mail:3pane", "msgcompose", "mail:messageWindow", "alert:alert"];
// Everything that can lie over a window and wait for a person.
const seen = node => {
  const { x, y, width, height } = node.getBoundingClientRect();
  const hit = height && node.ownerDocument.elementFromPoint(x + width / 2, y + height / 2);
  return Boolean(hit) && node.contains(hit);
};
const innerDocuments = () => [about3Pane(), about3Pane()?.messageBrowser?.contentWindow]
  .filter(Boolean).map(win => win.document);
function dialogs() {
  const found = [];
  for (const win of Services.wm.getEnumerator(null)) {
    const doc = win.document;
    if (win.closed || !doc?.documentElement) { continue; } // on its way out
    const type = doc.documentElement.getAttribute("windowtype") ?? "";
    const loading = doc.readyState != "complete" || doc.documentURI == "about:blank";
    const passing = loading || doc.documentURI.includes("/sendProgress.xhtml");
    if (!passing && !QUIET.includes(type)) {
      const info = doc.getElementById("infoBody")?.textContent ?? "";
      found.push({ kind: "window", text: doc.title + " " + info });
    }
    for (const node of doc.querySelectorAll(SHEETS)) {
      if (seen(node)) {
        found.push({ kind: node.localName, text: node.textContent.trim().slice(0, 300) });
      }
    }
    const inner = type == "mail:3pane" ? innerDocuments() : [];
    for (const bar of [doc, ...inner].flatMap(d => [...d.querySelectorAll(BAR)]).filter(seen)) {
      found.push({ kind: "bar", text: barText(bar) });
    }
  }
  return found;
}
const barText = node =>
  (node.getAttribute("value") ?? "") + ": " + (node.messageText ?? node).textContent.trim();
const bars = doc => [...doc.querySelectorAll(BAR)].map(barText);

const matches = header =>
  (task.message_id && header.messageId == task.message_id) ||
  (task.subject && (subjectOf(header) == task.subject || header.subject == task.subject)) ||
  (task.index !== undefined && headersOf(header.folder).indexOf(header) == task.index);

// Select a message as a person does; its protected subject is known only after it was opened once.
async function openMessage() {
  const folder = inboxOf(ownAccount());
  const pane = await until("the main window", about3Pane);
  const mail = await until("a message browser", () => pane.messageBrowser?.contentWindow);
  if (pane.gFolder?.URI != folder.URI) { pane.displayFolder(folder.URI); }
  const view = await until("the list of messages", () => pane.gDBView?.rowCount && pane.gDBView);
  const row = await until("the message", () => {
    for (let i = 0; i < view.rowCount; i++) {
      if (matches(view.getMsgHdrAt(i))) { return i + 1; }
    }
    return 0;
  }) - 1;
  const header = view.getMsgHdrAt(row);
  const shows = () => mail.gMessage?.messageKey == header.messageKey;
  if (!shows() || pane.threadTree.selectedIndex != row) {
    const loaded = new Promise(r => mail.addEventListener("MsgLoaded", r, { once: true }));
    pane.threadTree.selectedIndex = -1;
    pane.threadTree.selectedIndex = row;
    await Promise.race([loaded, sleep(task.deadline_s * 1000)]);
  }
  await until("the message's text", shows);
  return { header, mail, pane };
}
