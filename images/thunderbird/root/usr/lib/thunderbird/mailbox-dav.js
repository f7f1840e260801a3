// Calendars and address books of a mailbox.  Loaded by mailbox.cfg, which hands its tools over.

"use strict";

/* exported makeDav */
function makeDav({ load, mail, remembered, remember, warning, setTimeout }) {
  const REACH_DEADLINE_MS = 20000;
  const CAL_REGISTRY = "calendar.registry.";
  const cal = () => load("resource:///modules/calendar/calUtils.sys.mjs", "cal");
  const originOf = url => Services.io.newURI(url).prePath;
  const words = name => remembered(name).split(" ").filter(Boolean);
  const unique = list => [...new Set(list)];

  /** The same for the same collection and login, so that a second start finds it. */
  function idOf(kind, wish) {
    const text = new TextEncoder().encode([kind, wish.url, wish.login].join("\n"));
    const hash = Cc["@mozilla.org/security/hash;1"].createInstance(Ci.nsICryptoHash);
    hash.init(Ci.nsICryptoHash.SHA256);
    hash.update(text, text.length);
    const digest = Array.from(hash.finish(false), char => char.charCodeAt(0));
    const hex = digest.map(byte => byte.toString(16).padStart(2, "0")).join("");
    return `mailbox-${hex.slice(0, 32)}`;
  }

  // -- logins -----------------------------------------------------------------------------------

  function loginFor(wish, realm) {
    const login = Cc["@mozilla.org/login-manager/loginInfo;1"].createInstance(Ci.nsILoginInfo);
    login.init(originOf(wish.url), null, realm, wish.login, wish.password, "", "");
    return login;
  }

  const known = origin => Services.logins.searchLoginsAsync({ origin });

  function forgetConnections() {
    Cc["@mozilla.org/network/http-auth-manager;1"].getService(Ci.nsIHttpAuthManager).clearAll();
  }

  /** Before anything asks a server: no old password may be tried, and none of others may stay. */
  async function settleLogins(wishes) {
    const origins = unique(wishes.map(wish => originOf(wish.url)));
    for (const origin of unique([...words("dav_origins"), ...origins])) {
      for (const login of await known(origin)) {
        const wish = wishes.find(
          other => originOf(other.url) == origin && other.login == login.username
        );
        if (!wish) {
          await Services.logins.removeLoginAsync(login);
        } else if (login.password != wish.password) {
          await Services.logins.modifyLoginAsync(login, loginFor(wish, login.httpRealm));
          forgetConnections();
        }
      }
    }
    remember("dav_origins", origins.join(" "));
  }

  /** What the server answers to somebody without a login: its status, and what it wants. */
  function ask(url) {
    return new Promise(resolve => {
      const channel = Services.io
        .newChannelFromURI(
          Services.io.newURI(url),
          null,
          Services.scriptSecurityManager.getSystemPrincipal(),
          null,
          Ci.nsILoadInfo.SEC_ALLOW_CROSS_ORIGIN_SEC_CONTEXT_IS_NULL,
          Ci.nsIContentPolicy.TYPE_OTHER
        )
        .QueryInterface(Ci.nsIHttpChannel);
      channel.loadFlags |= Ci.nsIRequest.LOAD_ANONYMOUS | Ci.nsIRequest.LOAD_BYPASS_CACHE;
      channel.requestMethod = "PROPFIND";
      channel.setRequestHeader("Depth", "0", false);
      const end = () => channel.cancel(Cr.NS_ERROR_NET_TIMEOUT);
      setTimeout(end, REACH_DEADLINE_MS);
      channel.asyncOpen({
        QueryInterface: ChromeUtils.generateQI(["nsIStreamListener", "nsIRequestObserver"]),
        onStartRequest() {},
        onDataAvailable(_request, stream, _offset, count) {
          const sink = Cc["@mozilla.org/binaryinputstream;1"].createInstance(Ci.nsIBinaryInputStream);
          sink.setInputStream(stream);
          sink.readByteArray(count); // has to be read, and tells nothing
        },
        onStopRequest(request, status) {
          try {
            resolve({ status: channel.responseStatus, wants: header("WWW-Authenticate") });
          } catch {
            resolve({ status: 0, wants: "", error: `0x${(status >>> 0).toString(16)}` });
          }
        },
      });
      function header(name) {
        try {
          return channel.getResponseHeader(name);
        } catch {
          return "";
        }
      }
    });
  }

  /** The names under which a server asks for a login (RFC 7235); the login store wants them. */
  function realms(wants) {
    const found = wants.matchAll(/realm=(?:"((?:[^"\\]|\\.)*)"|([^\s,]+))/gi);
    return unique([...found].map(([, quoted, bare]) => (quoted ?? bare).replace(/\\(.)/g, "$1")));
  }

  /** Store the login as the server asks for it; whether it can be used now. */
  async function learn(wish) {
    const origin = originOf(wish.url);
    const present = (await known(origin)).filter(login => login.username == wish.login);
    const { status, wants, error } = await ask(wish.url);
    if (status != 401) {
      if (status != 207) {
        const reason = error ?? `it answers ${status}`;
        warning("dav-not-reached", `${new URL(wish.url).host} was not reached: ${reason}.`);
      }
      return present.length > 0 || status == 207;
    }
    for (const realm of realms(wants).filter(name => !present.some(l => l.httpRealm == name))) {
      await Services.logins.addLoginAsync(loginFor(wish, realm));
    }
    return true;
  }

  // -- calendars --------------------------------------------------------------------------------

  /** One that is no longer named must not ask its server while the program starts. */
  function silence(id) {
    Services.prefs.setBoolPref(`${CAL_REGISTRY}${id}.disabled`, true);
  }

  function dropCalendar(id) {
    const { manager } = cal();
    const calendar = manager.getCalendarById(id);
    if (calendar) {
      manager.removeCalendar(calendar, Ci.calICalendarManager.REMOVE_NO_DELETE);
    }
  }

  function applyCalendar(wish, colour, first) {
    const { manager } = cal();
    const id = idOf("calendar", wish);
    const present = manager.getCalendarById(id);
    if (present) {
      if (present.name != wish.name) {
        present.name = wish.name;
      }
      return;
    }
    const calendar = manager.createCalendar("caldav", Services.io.newURI(wish.url));
    calendar.id = id;
    calendar.name = wish.name;
    calendar.setProperty("username", wish.login);
    calendar.setProperty("color", colour);
    calendar.setProperty("cache.enabled", true); // to be read without the server, too
    if (first) {
      calendar.setProperty("calendar-main-default", true);
    }
    manager.registerCalendar(calendar);
  }

  // -- address books ----------------------------------------------------------------------------

  function dropBook(id) {
    const book = mail().ab.getDirectoryFromUID(id);
    if (book) {
      mail().ab.deleteAddressBook(book.URI);
    }
  }

  function applyBook(wish) {
    const { ab } = mail();
    const id = idOf("address-book", wish);
    const present = ab.getDirectoryFromUID(id);
    if (present) {
      if (present.dirName != wish.name) {
        present.dirName = wish.name;
      }
      return;
    }
    const type = Ci.nsIAbManager.CARDDAV_DIRECTORY_TYPE;
    const book = ab.getDirectoryFromId(ab.newAddressBook(wish.name, null, type, id));
    book.setStringValue("carddav.url", wish.url);
    book.setStringValue("carddav.username", wish.login);
    const CardDAVDirectory = load("resource:///modules/CardDAVDirectory.sys.mjs", "CardDAVDirectory");
    CardDAVDirectory.forFile(book.fileName)
      .fetchAllFromServer()
      .catch(error => Components.utils.reportError(error));
  }

  // -- both -------------------------------------------------------------------------------------

  const goneOf = (name, kind, wishes) => {
    const wanted = wishes.map(wish => idOf(kind, wish));
    return words(name).filter(id => !wanted.includes(id));
  };

  return {
    /** What needs no server, before anything is shown. */
    async settle({ calendars, address_books }) {
      await settleLogins([...calendars, ...address_books]);
      goneOf("calendars", "calendar", calendars).forEach(silence);
      goneOf("address_books", "address-book", address_books).forEach(dropBook);
    },

    /** Register what is new as soon as its server has said how it wants the login. */
    async reach({ calendars, address_books, colour }) {
      goneOf("calendars", "calendar", calendars).forEach(dropCalendar);
      const wishes = [...calendars, ...address_books];
      const doors = new Map(wishes.map(wish => [`${originOf(wish.url)}\n${wish.login}`, wish]));
      const open = new Map();
      for (const [door, wish] of doors) {
        open.set(door, learn(wish));
      }
      const usable = async wish => open.get(`${originOf(wish.url)}\n${wish.login}`);
      for (const [index, wish] of calendars.entries()) {
        if (await usable(wish)) {
          applyCalendar(wish, colour, index == 0);
        }
      }
      for (const wish of address_books) {
        if (await usable(wish)) {
          applyBook(wish);
        }
      }
      remember("calendars", calendars.map(wish => idOf("calendar", wish)).join(" "));
      remember("address_books", address_books.map(wish => idOf("address-book", wish)).join(" "));
      Services.prefs.savePrefFile(null);
    },
  };
}
