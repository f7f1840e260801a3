// What a folder on this computer holds: subjects, and the messages as their file has them.
const parent = MailServices.accounts.localFoldersServer.rootFolder;
const folder = await until("the folder", () =>
  parent.containsChildNamed(task.folder) && parent.getChildNamed(task.folder));
folder.getDatabaseWithReparse?.({ OnStartRunningUrl() {}, OnStopRunningUrl() {} }, null);
await until("the messages", () => headersOf(folder).length >= task.messages);
return { subjects: headersOf(folder).map(subjectOf) };
