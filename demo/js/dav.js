// Calendars and address books, as Thunderbird's own services know them; or one more entry in them.
const { cal } = ChromeUtils.importESModule("resource:///modules/calendar/calUtils.sys.mjs");
const { CalEvent } = ChromeUtils.importESModule("resource:///modules/CalEvent.sys.mjs");
const { AddrBookCard } = ChromeUtils.importESModule("resource:///modules/AddrBookCard.sys.mjs");
const { CardDAVDirectory } = ChromeUtils.importESModule("resource:///modules/CardDAVDirectory.sys.mjs");

const calendars = () => cal.manager.getCalendars().filter(each => each.type == "caldav");
const books = () => MailServices.ab.directories.filter(book => book.dirType == Ci.nsIAbManager.CARDDAV_DIRECTORY_TYPE);
const eventsOf = calendar => calendar.getItemsAsArray(Ci.calICalendar.ITEM_FILTER_ALL_ITEMS, 0, null, null);
const named = (list, name) => list.find(each => (each.name ?? each.dirName) == name);

async function events(calendar) {
  calendar.refresh();
  return (await eventsOf(calendar)).map(item => item.title).sort();
}
let trouble = "";
async function contacts(book) {
  try {
    await CardDAVDirectory.forFile(book.fileName).syncWithServer();
  } catch (error) { // another synchronisation may be under way
    trouble = ` (${error})`;
  }
  return book.childCards.map(card => card.displayName + " <" + card.primaryEmail + ">").sort();
}
async function look() {
  const found = { calendars: [], address_books: [] };
  for (const calendar of calendars()) {
    found.calendars.push({
      name: calendar.name, url: calendar.uri.spec, colour: calendar.getProperty("color"),
      default: Boolean(calendar.getProperty("calendar-main-default")),
      entries: await events(calendar) });
  }
  for (const book of books()) {
    found.address_books.push({
      name: book.dirName, url: book.getStringValue("carddav.url", ""), entries: await contacts(book) });
  }
  return found;
}

if (task.add_event) {
  const calendar = await until("the calendar", () => named(calendars(), task.add_event.calendar));
  const event = new CalEvent();
  event.title = task.add_event.summary;
  event.startDate = cal.createDateTime("20300115T100000Z");
  event.endDate = cal.createDateTime("20300115T110000Z");
  await calendar.addItem(event);
}
if (task.add_contact) {
  const book = await until("the address book", () => named(books(), task.add_contact.address_book));
  const card = new AddrBookCard();
  card.displayName = task.add_contact.name;
  card.primaryEmail = task.add_contact.address;
  book.addCard(card);
}
const wanted = task.entries ?? [];
const what = { toString: () => "the entries " + wanted.join(", ") + trouble };
return until(what, async () => {
  const found = await look();
  const entries = [...found.calendars, ...found.address_books].flatMap(each => each.entries);
  return wanted.every(entry => entries.includes(entry)) && found;
});
