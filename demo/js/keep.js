// Move a message of the inbox into a folder on this computer; done when Thunderbird says so.
const parent = MailServices.accounts.localFoldersServer.rootFolder;
const folderThere = () => parent.containsChildNamed(task.folder) && parent.getChildNamed(task.folder);
if (!folderThere()) { parent.createSubfolder(task.folder, null); }
const target = await until("the folder", folderThere);
const inbox = inboxOf(await until("an account", ownAccount));
const header = await until("the message", () => headersOf(inbox).find(matches));
await new Promise((resolve, reject) => {
  const listener = {
    QueryInterface: ChromeUtils.generateQI(["nsIMsgCopyServiceListener"]),
    onStartCopy() {},
    onProgress() {},
    setMessageKey() {},
    getMessageId() { return null; },
    onStopCopy(status) {
      Components.isSuccessCode(status) ? resolve() : reject(new Error("not copied: " + status));
    },
  };
  MailServices.copy.copyMessages(inbox, [header], target, true, listener, null, false);
});
return { messages: target.getTotalMessages(false) };
