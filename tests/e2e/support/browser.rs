//! Debian's Chromium without a screen, driven by `tests/testbed/node/browser.mjs`: what a mailbox owner has before him.
//!
//! What to click or fill in is named by Playwright's selectors: CSS, `text=Allow`, or best by what it is and is called, as
//! in `role=button[name="Allow"]`, which also shows that it can be found by those who do not see it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::Mutex;

use super::process::Process;
use super::{open_directory, project_file, require_installed};

/// A running browser; it ends, with all that is open in it, when dropped.
pub struct Browser {
    // Declared before its home, hence ended before that is removed.
    driver: Mutex<Driver>,
    _home: TempDir,
}

/// The only page of a person who shares nothing with the others: no cookies, no screen.
pub struct Tab<'a> {
    browser: &'a Browser,
    number: u64,
}

/// What kind of person that is.
#[derive(Clone, Copy, Debug)]
pub struct Person {
    /// The size of the screen.
    pub screen: Screen,
    /// The colours that are preferred.
    pub colors: Colors,
    /// Whether scripts are run.
    pub scripts: bool,
}

/// The size of a screen.
#[derive(Clone, Copy, Debug)]
pub enum Screen {
    /// 1280 by 800.
    Desktop,
    /// 375 by 667, with a finger instead of a mouse.
    Phone,
}

/// The colours that are preferred.
#[derive(Clone, Copy, Debug)]
pub enum Colors {
    /// Dark on light.
    Light,
    /// Light on dark.
    Dark,
}

/// The page in view.
#[derive(Clone, Debug, Deserialize)]
pub struct Shown {
    /// Its address, after all redirects.
    pub url: String,
    /// Its title.
    pub title: String,
    /// The HTTP status that it came with.
    pub status: u16,
    /// The headers that it came with; the names are in lower case.
    pub headers: BTreeMap<String, String>,
}

/// A request that a page made.
#[derive(Clone, Debug, Deserialize)]
pub struct PageRequest {
    /// The HTTP method.
    pub method: String,
    /// Where to.
    pub url: String,
    /// Its headers; the names are in lower case.
    pub headers: BTreeMap<String, String>,
}

/// What came of fetching a page ahead.
#[derive(Clone, Debug, Deserialize)]
pub struct Prefetched {
    /// The HTTP status of the answer.
    pub status: u16,
    /// The headers of the request.
    pub headers: BTreeMap<String, String>,
}

/// A rule of accessibility that a page breaks.
#[derive(Clone, Debug, Deserialize)]
pub struct Violation {
    /// The rule's name.
    pub id: String,
    /// What is wrong.
    pub help: String,
    /// The elements concerned.
    pub nodes: Vec<String>,
}

impl Browser {
    /// Starts one that trusts these authorities beside those that it knows by itself.
    pub async fn start(ca_files: &[&Path]) -> Browser {
        Browser::launch(json!({ "ca_files": ca_files })).await
    }

    /// As [`Browser::start`], with all but this machine's own addresses behind a proxy.
    pub async fn start_behind(proxy_url: &str, ca_files: &[&Path]) -> Browser {
        Browser::launch(json!({ "ca_files": ca_files, "proxy": proxy_url })).await
    }

    async fn launch(mut options: Value) -> Browser {
        require_installed(&project_file("tests/testbed/node/node_modules/.installed-from"));
        require_installed(Path::new("/usr/bin/chromium"));
        let home = open_directory();
        options["home"] = json!(home.path());
        let process = Process::spawn_ending_with_stdin(
            "browser",
            Command::new(project_file("tests/testbed/node/node"))
                .arg(project_file("tests/testbed/node/browser.mjs"))
                .arg(options.to_string()),
        );
        process.stdout_line(|line| is_answer_to(line, 0)).await;
        Browser {
            driver: Mutex::new(Driver { process, orders: 0 }),
            _home: home,
        }
    }

    /// Lets a person in.
    pub async fn open(&self, person: Person) -> Tab<'_> {
        let order = json!({
            "do": "open",
            "viewport": person.screen.name(),
            "colors": person.colors.name(),
            "scripts": person.scripts,
        });
        Tab {
            browser: self,
            number: self.must(order).await,
        }
    }

    async fn must<T: DeserializeOwned>(&self, order: Value) -> T {
        self.driver.lock().await.must(order).await
    }
}

impl Screen {
    /// As the driver, and the name of a picture, call it.
    pub fn name(self) -> &'static str {
        match self {
            Screen::Desktop => "desktop",
            Screen::Phone => "phone",
        }
    }
}

impl Colors {
    /// As the driver, and the name of a picture, call them.
    pub fn name(self) -> &'static str {
        match self {
            Colors::Light => "light",
            Colors::Dark => "dark",
        }
    }
}

impl Default for Person {
    fn default() -> Person {
        Person {
            screen: Screen::Desktop,
            colors: Colors::Light,
            scripts: true,
        }
    }
}

impl Tab<'_> {
    /// Goes to an address and waits until the page has loaded.
    pub async fn goto(&self, url: &str) -> Shown {
        self.must(json!({ "do": "goto", "url": url })).await
    }

    /// Loads the page again.
    pub async fn reload(&self) -> Shown {
        self.must(json!({ "do": "reload" })).await
    }

    /// Clicks, and waits until the page to which that leads has loaded.
    pub async fn follow(&self, selector: &str) -> Shown {
        self.must(json!({ "do": "follow", "selector": selector })).await
    }

    /// As [`Tab::follow`], with a second click right behind the first.
    pub async fn follow_twice(&self, selector: &str) -> Shown {
        self.must(json!({ "do": "follow-twice", "selector": selector })).await
    }

    /// Presses the browser's own button for the page before, and waits until that has loaded.
    pub async fn back(&self) -> Shown {
        self.must(json!({ "do": "back" })).await
    }

    /// Goes on with the same page on another screen and in other colours.
    pub async fn look(&self, screen: Screen, colors: Colors) {
        let order = json!({ "do": "look", "viewport": screen.name(), "colors": colors.name() });
        self.must(order).await
    }

    /// Types into a field, in place of what is there.
    pub async fn fill(&self, selector: &str, value: &str) {
        self.must(json!({ "do": "fill", "selector": selector, "value": value }))
            .await
    }

    /// Ticks a box, or unticks it.
    pub async fn tick(&self, selector: &str, ticked: bool) {
        self.must(json!({ "do": "tick", "selector": selector, "ticked": ticked }))
            .await
    }

    /// The text that an element shows.
    pub async fn text(&self, selector: &str) -> String {
        self.must(json!({ "do": "text", "selector": selector })).await
    }

    /// How many elements there are.
    pub async fn count(&self, selector: &str) -> usize {
        self.must(json!({ "do": "count", "selector": selector })).await
    }

    /// The page as it is by now.
    pub async fn html(&self) -> String {
        self.must(json!({ "do": "html" })).await
    }

    /// Writes a picture of the whole page, PNG.
    pub async fn screenshot(&self, file: &Path) {
        self.must(json!({ "do": "screenshot", "file": file })).await
    }

    /// The rules of accessibility that the page breaks, as axe sees it, for a person with scripts.
    pub async fn axe(&self) -> Vec<Violation> {
        self.must(json!({ "do": "axe" })).await
    }

    /// Fetches a page ahead, as a browser does where some page bids it to.
    pub async fn prefetch(&self, url: &str) -> Prefetched {
        self.must(json!({ "do": "prefetch", "url": url })).await
    }

    /// The cookies of all places, in the browser's words.
    pub async fn cookies(&self) -> Vec<Value> {
        self.must(json!({ "do": "cookies" })).await
    }

    /// Every request that was made so far, oldest first.
    pub async fn requests(&self) -> Vec<PageRequest> {
        self.must(json!({ "do": "requests" })).await
    }

    /// What the browser had to complain of so far: broken scripts, violated policies, refused connections; each with the
    /// address of what it is about, in brackets.
    pub async fn complaints(&self) -> Vec<String> {
        self.must(json!({ "do": "complaints" })).await
    }

    /// Leaves, and forgets everything.
    pub async fn close(self) {
        self.must(json!({ "do": "close" })).await
    }

    async fn must<T: DeserializeOwned>(&self, mut order: Value) -> T {
        order["tab"] = json!(self.number);
        self.browser.must(order).await
    }
}

/// The process that drives the browser, one order after the other.
struct Driver {
    process: Process,
    orders: u64,
}

impl Driver {
    async fn must<T: DeserializeOwned>(&mut self, mut order: Value) -> T {
        self.orders += 1;
        let id = self.orders;
        order["id"] = json!(id);
        self.process.write_line(&order.to_string());
        let line = self.process.stdout_line(|line| is_answer_to(line, id)).await;
        let mut said: Value = serde_json::from_str(&line).expect("an answer is JSON");
        if let Some(error) = said["error"].as_str() {
            panic!("browser: {order}: {error}\n{}", self.process.log_tail());
        }
        serde_json::from_value(said["answer"].take()).unwrap_or_else(|error| panic!("{order}: {error}: {line}"))
    }
}

fn is_answer_to(line: &str, id: u64) -> bool {
    line.starts_with(&format!("{{\"id\":{id},"))
}
