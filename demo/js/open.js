// Open a message and read what its window shows.
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
