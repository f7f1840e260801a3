"""Ask a running Thunderbird what it shows, from beside it: Marionette, standard library only.

This one file is piped into `python3 -` in a guest: a first argument or the first line of standard
input that follows is the task, one line of JSON comes back.  It imports nothing of the package.

Tasks: {"do": "facts"} · {"do": "open", "subject": ...} · {"do": "reply", "subject": ..., "text":
...} · {"do": "write", "to": ..., "subject": ..., "text": ...} · {"do": "dialogs"}; each with an
optional "deadline_s" and "port".
"""

import json
import socket
import sys
import time
from typing import Any

Json = dict[str, Any]

HELPERS = r"""
const [task, resolve] = [arguments[0], arguments[arguments.length - 1]];
const { MailServices } = ChromeUtils.importESModule("resource:///modules/MailServices.sys.mjs");
const { setTimeout } = ChromeUtils.importESModule("resource://gre/modules/Timer.sys.mjs");
const sleep = ms => new Promise(r => setTimeout(r, ms));
const end = Date.now() + task.deadline_s * 1000;
async function until(what, look) {
  for (;;) {
    const found = await look();
    if (found) { return found; }
    if (Date.now() > end) { throw new Error("not in time: " + what); }
    await sleep(100);
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
"""

FACTS = r"""
const accounts = MailServices.accounts.accounts.map(account => ({
  key: account.key,
  type: account.incomingServer.type,
  name: account.incomingServer.prettyName,
  host: account.incomingServer.hostname,
  port: account.incomingServer.port,
  login: account.incomingServer.username,
  security: account.incomingServer.socketType,
  folders: account.incomingServer.rootFolder.descendants.map(f => f.name).sort(),
}));
const account = await until("an account", ownAccount);
const identity = account.defaultIdentity;
const inbox = await until("an inbox", () => inboxOf(account));
await until("the messages", () => inbox.getTotalMessages(false) >= (task.messages ?? 0));
const { RNP } = ChromeUtils.importESModule("chrome://openpgp/content/modules/RNP.sys.mjs");
const { PgpSqliteDb2 } = ChromeUtils.importESModule("chrome://openpgp/content/modules/sqliteDb.sys.mjs");
const keys = [];
for (const key of await RNP.getKeys()) {
  const acceptance = await PgpSqliteDb2.getFingerprintAcceptance(null, key.fpr);
  keys.push({ fingerprint: key.fpr, user_id: key.userId, secret: key.secretAvailable, acceptance });
}
const { FolderTreeProperties } = ChromeUtils.importESModule("resource:///modules/FolderTreeProperties.sys.mjs");
return {
  accounts,
  identities: MailServices.accounts.allIdentities.length,
  outgoing: [...MailServices.outgoingServer.servers].map(s => ({
    host: s.serverURI.host, port: s.serverURI.port, login: s.username, security: s.socketType })),
  identity: {
    address: identity.email, name: identity.fullName, signature: identity.htmlSigText,
    sign: identity.signMail, attach_key: identity.attachPgpKey,
    autocrypt: identity.sendAutocryptHeaders, protect_subject: identity.protectSubject,
    encrypt_drafts: identity.autoEncryptDrafts,
    openpgp_key_id: identity.getUnicharAttribute("openpgp_key_id"),
  },
  logins: (await Services.logins.getAllLogins()).map(l => l.origin + " " + l.username),
  keys,
  colour: FolderTreeProperties.getColor(account.incomingServer.rootFolder.URI) ?? null,
  inbox: {
    messages: inbox.getTotalMessages(false),
    subjects: headersOf(inbox).map(subjectOf),
  },
  title: mainWindow()?.document.title ?? "",
  offline: Services.io.offline,
  preferences: Object.fromEntries((task.preferences ?? []).map(name => [name,
    { 0: () => null, 32: () => Services.prefs.getStringPref(name),
      64: () => Services.prefs.getIntPref(name),
      128: () => Services.prefs.getBoolPref(name) }[Services.prefs.getPrefType(name)]()])),
};
"""

OPEN = r"""
const { header, mail } = await openMessage();
const doc = mail.document;
const icon = id => {
  const node = doc.getElementById(id);
  if (!node || node.hidden || !node.src) { return null; }
  return /message-(?:encrypted|signed)-(\w+)/.exec(node.src)?.[1] ?? node.src;
};
const reading = () => ({
  encrypted: icon("encryptedHdrIcon"),
  signed: icon("signedHdrIcon"),
  technology: doc.getElementById("cryptoBox")?.getAttribute("tech") ?? "",
  body: mail.getMessagePaneBrowser().contentDocument?.body?.innerText.trim() ?? "",
  bars: bars(doc),
});
// OpenPGP fills the icons after the text, and the signature after the encryption.
const settled = JSON.stringify;
let last = reading();
await until("a steady reading", async () => {
  await sleep(500);
  const now = reading();
  const same = settled(now) == settled(last);
  last = now;
  const awaited = !task.expect || Object.entries(task.expect).every(([k, v]) => now[k] === v);
  return same && (awaited || Date.now() > end - 1000);
});
return { ...last, subject: subjectOf(header), author: header.mime2DecodedAuthor,
         message_id: header.messageId,
         images: [...(mail.getMessagePaneBrowser().contentDocument?.images ?? [])]
           .map(i => ({ src: i.src, loaded: i.complete && i.naturalWidth > 0 })) };
"""

COMPOSE = r"""
const make = (contract, type) => Cc[contract].createInstance(type);
async function fieldsAndParameters() {
  const parameters = make("@mozilla.org/messengercompose/composeparams;1", Ci.nsIMsgComposeParams);
  const fields = make("@mozilla.org/messengercompose/composefields;1", Ci.nsIMsgCompFields);
  parameters.format = Ci.nsIMsgCompFormat.PlainText;
  parameters.identity = ownAccount().defaultIdentity;
  parameters.composeFields = fields;
  if (task.do == "reply") {
    const { header } = await openMessage();
    parameters.type = Ci.nsIMsgCompType.ReplyToSender;
    parameters.originalMsgURI = header.folder.getUriForMsg(header);
    parameters.origMsgHdr = header;
  } else {
    parameters.type = Ci.nsIMsgCompType.New;
    Object.assign(fields, { to: task.to, subject: task.subject });
  }
  return parameters;
}
const before = new Set(Services.wm.getEnumerator("msgcompose"));
const parameters = await fieldsAndParameters();
MailServices.compose.OpenComposeWindowWithParams(null, parameters);
const win = await until("a compose window", () =>
  [...Services.wm.getEnumerator("msgcompose")].find(w => !before.has(w)));
await until("the editor", () => win.gMsgCompose?.editor && win.composeEditorReady !== false &&
  win.document.getElementById("messageEditor")?.contentDocument?.body);
if (task.do == "reply") {
  await until("the quoted text", () => win.GetCurrentEditor?.()?.documentIsEmpty === false);
}
// Typed, not given: what a person wrote is what a closing window would ask about.
const editor = win.GetCurrentEditor();
editor.beginningOfDocument();
editor.insertText(task.text + "\n");
const state = () => ({
  encrypt: win.gSendEncrypted, sign: win.gSendSigned, openpgp: win.gSelectedTechnologyIsPGP,
  attach_key: win.gAttachMyPublicPGPKey, protect_subject: win.gEncryptSubject,
  to: [...win.document.querySelectorAll("mail-address-pill")].map(pill => pill.emailAddress),
  subject: win.document.getElementById("msgSubject").value,
  bars: bars(win.document),
});
// The keys of the recipients are looked up after the window opened; wait until that is over.
await until("the recipients", () => state().to.length);
let last = "";
await until("a steady compose window", async () => {
  await sleep(600);
  const now = JSON.stringify(state());
  const same = now == last && !win.gCheckEncryptionStateCompletionIsPending;
  last = now;
  return same;
});
const composed = state();
if (!task.send) {
  if (task.send === false) {
    win.gContentChanged = false;
    win.close();
  }
  return { ...composed, sent: false, status: null, dialogs: [] };
}
let status = null;
const stopped = () => {};
win.gMsgCompose.addMsgSendListener({
  QueryInterface: ChromeUtils.generateQI(["nsIMsgSendListener"]),
  onStartSending: stopped, onSendProgress: stopped, onProgress: stopped, onStatus: stopped,
  onGetDraftFolderURI: stopped, onSendNotPerformed: (_id, s) => { status ??= s || 1; },
  onStopSending(_id, s) { status = s; },
  onTransportSecurityError: stopped,
});
win.goDoCommand("cmd_sendNow");
let asked = [];
await until("the end of sending", () => {
  asked = dialogs().filter(d => d.kind == "window");
  return status !== null || asked.length;
}).catch(() => {});
if (status === 0) { await until("the window's end", () => win.closed).catch(() => {}); }
return { ...composed, sent: status === 0, status, dialogs: status === 0 ? [] : asked,
         bars_after: win.closed ? [] : bars(win.document) };
"""

DIALOGS = "return { dialogs: dialogs() };"

SCRIPTS = {"facts": FACTS, "open": OPEN, "reply": COMPOSE, "write": COMPOSE, "dialogs": DIALOGS}


class MarionetteError(Exception):
    """Thunderbird did not answer, or said no."""


class ModalDialogError(MarionetteError):
    """A question to the person lies over Thunderbird's windows; its text."""


class Marionette:
    """One session with a Thunderbird that was started with -marionette."""

    def __init__(self, port: int = 2828, *, deadline_s: float = 60) -> None:
        self._socket = _connect(port, deadline_s)
        self._number = 0
        self._receive()  # its greeting
        # Questions to the person are reported, not answered.
        self.call("WebDriver:NewSession", {"unhandledPromptBehavior": "ignore"})
        self.call("Marionette:SetContext", {"value": "chrome"})

    def close(self) -> None:
        """End the session; Thunderbird goes on."""
        try:
            self.call("WebDriver:DeleteSession", {})
        finally:
            self._socket.close()

    def run(self, script: str, task: Json) -> Json:
        """Run an asynchronous function body in Thunderbird; returns what it returns."""
        timeout = int(task["deadline_s"] * 1000 + 10000)
        self.call("WebDriver:SetTimeouts", {"script": timeout})
        self._socket.settimeout(timeout / 1000 + 10)
        body = (
            HELPERS
            + "(async () => {\n"
            + script
            + "\n})().then(value => resolve({ value }),"
            + " error => resolve({ error: String(error), stack: error.stack ?? '' }));"
        )
        arguments = {"script": body, "args": [task], "newSandbox": True}
        answer: Json = self.call("WebDriver:ExecuteAsyncScript", arguments)["value"]
        if "error" in answer:
            raise MarionetteError(answer["error"])
        value: Json = answer["value"]
        return value

    def call(self, name: str, parameters: Json) -> Any:
        """One command and its answer."""
        self._number += 1
        message = json.dumps([0, self._number, name, parameters]).encode()
        self._socket.sendall(str(len(message)).encode() + b":" + message)
        _, number, error, result = self._receive()
        if number != self._number:
            raise MarionetteError("answer to another command")
        if error and error.get("error") == "unexpected alert open":
            raise ModalDialogError(self.call("WebDriver:GetAlertText", {})["value"])
        if error:
            raise MarionetteError(f"{error.get('error')}: {error.get('message')}")
        return result

    def _receive(self) -> Any:
        length = b""
        while not length.endswith(b":"):
            length += self._read(1)
        left, parts = int(length[:-1]), []
        while left:
            parts.append(self._read(min(left, 65536)))
            left -= len(parts[-1])
        return json.loads(b"".join(parts))

    def _read(self, size: int) -> bytes:
        data = self._socket.recv(size)
        if not data:
            raise MarionetteError("Thunderbird ended the connection")
        return data


def _connect(port: int, deadline_s: float) -> socket.socket:
    end = time.monotonic() + deadline_s
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=30)
        except OSError as error:
            if time.monotonic() > end:
                raise MarionetteError(f"no Marionette on port {port}: {error}") from error
            time.sleep(0.2)


def perform(task: Json) -> Json:
    """Do one task; returns its result, or {"error": ...}."""
    task = {"deadline_s": 60, "port": 2828, **task}
    try:
        session = Marionette(task["port"], deadline_s=task["deadline_s"])
        try:
            return session.run(SCRIPTS[task["do"]], task)
        finally:
            session.close()
    except ModalDialogError as error:
        if task["do"] == "dialogs":
            return {"dialogs": [{"kind": "modal", "text": str(error)}]}
        return {"error": f"a question waits for an answer: {error}"}
    except (MarionetteError, OSError, KeyError) as error:
        return {"error": f"{type(error).__name__}: {error}"}


def main(arguments: list[str]) -> int:
    """Read a task, print its result as one line of JSON."""
    text = arguments[0] if arguments else sys.stdin.readline()
    result = perform(json.loads(text))
    sys.stdout.write(json.dumps(result) + "\n")
    return 1 if "error" in result else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
