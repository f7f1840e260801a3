// Accounts, keys and the inbox, as Thunderbird's own services know them.
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
const certificates = Cc["@mozilla.org/security/x509certdb;1"].getService(Ci.nsIX509CertDB);
const users = task.certificates
  ? certificates.getCerts().filter(cert => cert.certType & Ci.nsIX509Cert.USER_CERT)
  : [];
const certificateOf = use => {
  const dbKey = identity.getCharAttribute(use + "_cert_dbkey");
  const cert = dbKey ? certificates.findCertByDBKey(dbKey) : null;
  const has_key = users.some(user => user.sha256Fingerprint == cert?.sha256Fingerprint);
  return cert && { name: cert.displayName, fingerprint: cert.sha256Fingerprint, has_key };
};
const { FolderTreeProperties } = ChromeUtils.importESModule("resource:///modules/FolderTreeProperties.sys.mjs");
const { AddonManager } = ChromeUtils.importESModule("resource://gre/modules/AddonManager.sys.mjs");
const addons = await AddonManager.getAddonsByTypes(["extension"]);
return {
  accounts,
  addons: addons.map(addon => addon.id),
  identities: MailServices.accounts.allIdentities.length,
  outgoing: [...MailServices.outgoingServer.servers].map(s => ({
    host: s.serverURI.host, port: s.serverURI.port, login: s.username, security: s.socketType })),
  identity: {
    address: identity.email, name: identity.fullName, signature: identity.htmlSigText,
    sign: identity.signMail, attach_key: identity.attachPgpKey,
    autocrypt: identity.sendAutocryptHeaders, protect_subject: identity.protectSubject,
    encrypt_drafts: identity.autoEncryptDrafts,
    certificates: task.certificates ? {
      signing: certificateOf("signing"), encryption: certificateOf("encryption"),
      stored: users.map(cert => cert.sha256Fingerprint) } : null,
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
