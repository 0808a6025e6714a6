//! Consent from end to end: owners of mailboxes give their grant at a certified provider, by a code, by a device or by a
//! hosted link in a real browser, and their mail opens at a real Dovecot afterwards, or it is told truly why not.

mod bed;
mod code;
mod device;
mod link;
mod looks;
mod loopback;
mod secrets;
