// Answer or write a message; read the window, send it, wait for the end.
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
// A command that is still locked would be dropped without a word; a person sees a grey button.
const command = "cmd_sendNow";
await until("the send button", () => win.defaultController.isCommandEnabled(command));
win.defaultController.doCommand(command);
// A window that passes by while it sends is no question; one that stays is.
let asked = [];
let since = null, failure = null;
await until("the end of sending", () => {
  asked = dialogs().filter(d => d.kind == "window");
  since = asked.length ? since ?? Date.now() : null;
  return status !== null || (since && Date.now() - since > 10000);
}).catch(error => { failure = `${error}`; });
if (status === 0) { await until("the window's end", () => win.closed).catch(() => {}); }
return { ...composed, sent: status === 0, status, dialogs: status === 0 ? [] : asked,
         failure, bars_after: win.closed ? [] : bars(win.document) };
