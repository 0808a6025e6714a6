// What Thunderbird is told to do, as the body of a function of its privileged context:
// tests/e2e/support/thunderbird.rs runs it by WebDriver:ExecuteAsyncScript.
//
//   trust {"authority"}                    the certificate, base64 of its DER form
//   remember {"user", "password"}          for both the IMAP and the SMTP account
//   read {"count"}                         → the messages of the inbox by UID, each in base64, once
//                                            there are at least so many
//   send {"from", "to", "subject", "body"}
//
// The answer is {"done": …} or {"failed": text}.

const [action, order, answer] = arguments;

const { MailServices } = ChromeUtils.importESModule("resource:///modules/MailServices.sys.mjs");
const { setTimeout } = ChromeUtils.importESModule("resource://gre/modules/Timer.sys.mjs");

// In milliseconds: how long reading is tried in all, less than tests/e2e/support/thunderbird.rs waits;
// how long one attempt may take; and the pause after it.
const PATIENCE = 45_000;
const ATTEMPT = 8_000;
const POLL = 50;
// The module of an nsresult that stems from TLS.
const SECURITY_MODULE = 0x5a;

const actions = {
  async trust({ authority }) {
    const database = Cc["@mozilla.org/security/x509certdb;1"].getService(Ci.nsIX509CertDB);
    database.addCertFromBase64(authority, "C,,");
  },

  async remember({ user, password }) {
    for (const origin of ["imap://localhost", "smtp://localhost"]) {
      const login = Cc["@mozilla.org/login-manager/loginInfo;1"].createInstance(Ci.nsILoginInfo);
      login.init(origin, null, origin, user, password, "", "");
      await Services.logins.addLoginAsync(login);
    }
  },

  read({ count }) {
    return insist(async () => {
      const folder = await inbox();
      if ([...folder.messages].length < count) {
        await untilDone((listener) => folder.updateFolderWithListener(null, listener));
      }
      const headers = [...folder.messages].sort((one, other) => one.messageKey - other.messageKey);
      if (headers.length < count) {
        throw new Error(`${headers.length} messages are there`);
      }
      const messages = [];
      for (const header of headers) {
        messages.push(await source(folder.getUriForMsg(header)));
      }
      return messages;
    });
  },

  async send({ from, to, subject, body }) {
    const fields = Cc["@mozilla.org/messengercompose/composefields;1"].createInstance(Ci.nsIMsgCompFields);
    Object.assign(fields, { from, to, subject });
    const send = Cc["@mozilla.org/messengercompose/send;1"].createInstance(Ci.nsIMsgSend);
    const { defaultIdentity } = MailServices.accounts.defaultAccount;
    await new Promise((resolve, reject) => {
      const listener = {
        QueryInterface: ChromeUtils.generateQI(["nsIMsgSendListener"]),
        onStartSending() {},
        onSendProgress() {},
        onSendNotPerformed: () => reject(new Error("the message was not sent")),
        onTransportSecurityError: (_id, status) => reject(failure("TLS", status)),
        onStopSending: (_id, status) => (Components.isSuccessCode(status) ? resolve() : reject(failure("sending", status))),
      };
      send.createAndSendMessage(
        null, defaultIdentity, "", fields, false, false, Ci.nsIMsgSend.nsMsgDeliverNow, null,
        "text/plain", body, null, null, listener, "", null, Ci.nsIMsgCompType.New,
      );
    });
  },
};

// The inbox is known once the server has listed its folders.
async function inbox() {
  const root = MailServices.accounts.defaultAccount.incomingServer.rootFolder;
  const known = () => root.getFolderWithFlags(Ci.nsMsgFolderFlags.Inbox);
  if (!known()) {
    await untilDone((listener) => MailServices.imap.discoverAllFolders(root, listener, null));
  }
  if (!known()) {
    throw new Error("no inbox is known"); // Folders are made after the end of the listing has been told.
  }
  return known().QueryInterface(Ci.nsIMsgImapMailFolder);
}

// Reads until it succeeds. As its window opens, Thunderbird lists the folders and updates the inbox by
// itself, and makes the folders anew: whatever of ours meets that fails, or is never told its end.
// Only what TLS refuses is not tried again.
async function insist(attempt) {
  const deadline = Date.now() + PATIENCE;
  while (true) {
    try {
      const tooLong = pause(ATTEMPT).then(() => Promise.reject(new Error("an attempt takes too long")));
      return await Promise.race([attempt(), tooLong]);
    } catch (error) {
      if (error.isOfTls || Date.now() > deadline) {
        throw error;
      }
    }
    await pause(POLL);
  }
}

function pause(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

// Waits for the end of the IMAP command that `begin` starts.
function untilDone(begin) {
  return new Promise((resolve, reject) => {
    begin({
      QueryInterface: ChromeUtils.generateQI(["nsIUrlListener"]),
      OnStartRunningUrl() {},
      OnStopRunningUrl: (url, status) => (Components.isSuccessCode(status) ? resolve() : reject(failure(url?.spec, status))),
    });
  });
}

function source(uri) {
  return new Promise((resolve, reject) => {
    const parts = [];
    const listener = {
      QueryInterface: ChromeUtils.generateQI(["nsIStreamListener", "nsIRequestObserver"]),
      onStartRequest() {},
      onDataAvailable(_request, stream, _offset, count) {
        const input = Cc["@mozilla.org/binaryinputstream;1"].createInstance(Ci.nsIBinaryInputStream);
        input.setInputStream(stream);
        parts.push(input.readBytes(count));
      },
      onStopRequest: (_request, status) =>
        Components.isSuccessCode(status) ? resolve(btoa(parts.join(""))) : reject(failure(uri, status)),
    };
    MailServices.messageServiceFromURI(uri).streamMessage(uri, listener, null, null, false, "", false);
  });
}

function failure(what, status) {
  const error = new Error(`${what}: 0x${(status >>> 0).toString(16)}`);
  error.isOfTls = ((status >>> 16) & 0x7fff) === SECURITY_MODULE;
  return error;
}

actions[action](order).then(
  (done) => answer({ done }),
  (error) => answer({ failed: `${error}\n${error?.stack}` }),
);
