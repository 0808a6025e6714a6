//! Damaged stores: what has been acknowledged is there, or the store is refused and left as it was found.

use std::collections::BTreeMap;

use super::*;
use crate::store::witness::{FILE as WITNESS, Holdings, Witness};

/// A store with two accounts and their tokens, as a kill leaves it: all of it is in the journal.
async fn killed() -> TempDir {
    let directory = state_dir();
    let store = open(directory.path());
    for id in ["a", "b"] {
        store
            .create_account(account(id, None, 1), password("sesame"))
            .await
            .unwrap();
    }
    store.create_token(token(1, Some("a"))).await.unwrap();
    store.create_token(token(2, Some("b"))).await.unwrap();
    until("the witness says what there is", async || {
        let says = Witness::read(directory.path()).unwrap().unwrap();
        says == holdings(4, 2, 2)
    })
    .await;
    // A copy made while it runs is what a kill leaves; without the rest of what fjall allots, of which there are many copies.
    let killed = copy(directory.path());
    let journal = killed.path().join("store/0.jnl");
    let mut bytes = fs::read(&journal).unwrap();
    let written = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes.truncate(written.next_multiple_of(4096));
    fs::write(&journal, bytes).unwrap();
    killed
}

fn holdings(generation: u64, accounts: u64, tokens: u64) -> Holdings {
    Holdings {
        generation,
        accounts,
        tokens,
    }
}

fn refused(directory: &Path) -> String {
    let error = EmbeddedStore::open(directory, &MasterKeySource::Generated)
        .err()
        .unwrap();
    assert!(
        matches!(error, StoreError::Incomplete(_) | StoreError::Unreadable(_)),
        "{error:?}"
    );
    error.to_string()
}

async fn is_whole(store: &EmbeddedStore) -> bool {
    let secrets = store.account_secrets("a").await.unwrap();
    let tokens = store.tokens(None, None, ALL).await.unwrap();
    let accounts = store.accounts(None, ALL).await.unwrap();
    secrets.is_some() && tokens.total == 2 && accounts.total == 2
}

fn bytes_of(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let journals = files(directory);
    let journals = journals
        .into_iter()
        .filter(|path| path.extension().is_some_and(|kind| kind == "jnl"));
    journals.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[tokio::test]
async fn a_journal_whose_first_byte_is_flipped_is_refused_and_left_as_it_was() {
    let directory = killed().await;
    let journal = directory.path().join("store/0.jnl");
    let mut bytes = fs::read(&journal).unwrap();
    bytes[0] ^= 0xFF;
    fs::write(&journal, &bytes).unwrap();
    let before = bytes_of(directory.path());
    let message = refused(directory.path());
    assert!(
        message.contains("2 of 2 accounts, 2 of 2 access tokens, 4 of 4 commits"),
        "{message}"
    );
    assert!(
        message.contains("--accept-loss") && message.contains("backup"),
        "{message}"
    );
    assert_eq!(bytes_of(directory.path()), before);

    // Whoever mends the byte has everything again.
    bytes[0] ^= 0xFF;
    fs::write(&journal, &bytes).unwrap();
    assert!(is_whole(&open(directory.path())).await);
}

#[tokio::test]
async fn a_journal_that_was_cut_off_or_is_gone_is_refused_wherever_it_was_cut() {
    let directory = killed().await;
    let whole = fs::read(directory.path().join("store/0.jnl")).unwrap();
    let end = whole.iter().rposition(|byte| *byte != 0).unwrap();
    for cut in [0, 1, end / 4, end / 2, end - 1] {
        let damaged = copy(directory.path());
        let journal = damaged.path().join("store/0.jnl");
        fs::write(&journal, &whole[..cut]).unwrap();
        refused(damaged.path());
        assert_eq!(fs::read(&journal).unwrap(), whole[..cut], "{cut}");
        fs::write(&journal, &whole).unwrap();
        assert!(is_whole(&open(damaged.path())).await, "{cut}");
    }
    let journal = directory.path().join("store/0.jnl");
    fs::remove_file(&journal).unwrap();
    refused(directory.path());
    fs::write(&journal, &whole).unwrap();
    assert!(is_whole(&open(directory.path())).await);
}

/// Whatever is damaged, no records vanish in silence: the store is whole, or it is refused.
#[tokio::test]
async fn no_damaged_file_makes_a_store_look_empty() {
    let running = killed().await;
    let closed = copy(running.path());
    open(closed.path()).close().await.unwrap();
    let mut refusals = 0;
    for state in [running.path(), closed.path()] {
        for file in files(&state.join("store")) {
            let name = file.strip_prefix(state).unwrap().to_owned();
            for damage in [
                "removed",
                "emptied",
                "flipped at the first byte",
                "flipped in the middle",
            ] {
                let damaged = copy(state);
                let path = damaged.path().join(&name);
                let mut bytes = fs::read(&path).unwrap();
                let written = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
                match damage {
                    "removed" => fs::remove_file(&path).unwrap(),
                    "emptied" => fs::write(&path, b"").unwrap(),
                    _ if written == 0 => continue,
                    "flipped at the first byte" => bytes[0] ^= 0xFF,
                    _ => bytes[written / 2] ^= 0xFF,
                }
                if damage.starts_with("flipped") {
                    fs::write(&path, &bytes).unwrap();
                }
                match EmbeddedStore::open(damaged.path(), &MasterKeySource::Generated) {
                    Ok(store) => assert!(
                        tokio::time::timeout(Duration::from_secs(5), is_whole(&store))
                            .await
                            .unwrap(),
                        "{name:?} {damage}"
                    ),
                    Err(StoreError::Incomplete(_) | StoreError::Unreadable(_)) => refusals += 1,
                    Err(error) => panic!("{name:?} {damage}: {error}"),
                }
            }
        }
    }
    assert!(refusals > 10, "{refusals}");
}

#[tokio::test]
async fn a_store_that_is_gone_is_refused_beside_its_key_or_its_witness() {
    let directory = killed().await;
    fs::remove_dir_all(directory.path().join("store")).unwrap();
    let message = refused(directory.path());
    assert!(
        message.contains("is missing") && message.contains("store.witness"),
        "{message}"
    );
    assert!(!directory.path().join("store").exists());

    fs::remove_file(directory.path().join(WITNESS)).unwrap();
    let message = refused(directory.path());
    assert!(
        message.contains("is missing") && message.contains("master.key"),
        "{message}"
    );

    let accept =
        |directory: &Path| EmbeddedStore::open_with(directory, &MasterKeySource::Generated, Loss::Accepted).unwrap();
    accept(directory.path()).close().await.unwrap();
    assert_eq!(open(directory.path()).accounts(None, ALL).await.unwrap().total, 0);
}

#[tokio::test]
async fn a_loss_that_is_accepted_leaves_what_is_left_and_is_not_complained_of_again() {
    let directory = killed().await;
    let journal = directory.path().join("store/0.jnl");
    let whole = fs::read(&journal).unwrap();
    let end = whole.iter().rposition(|byte| *byte != 0).unwrap();
    fs::write(&journal, &whole[..end - 1]).unwrap();
    refused(directory.path());
    let store = EmbeddedStore::open_with(directory.path(), &MasterKeySource::Generated, Loss::Accepted).unwrap();
    assert_eq!(store.accounts(None, ALL).await.unwrap().total, 2);
    assert_eq!(store.tokens(None, None, ALL).await.unwrap().total, 1);
    store.close().await.unwrap();
    open(directory.path());
}

#[tokio::test]
async fn a_database_that_cannot_be_opened_is_set_aside_where_the_loss_is_accepted() {
    let directory = killed().await;
    let version = directory.path().join("store/version");
    fs::write(&version, b"nonsense").unwrap();
    let message = refused(directory.path());
    assert!(message.contains("--accept-loss"), "{message}");
    let store = EmbeddedStore::open_with(directory.path(), &MasterKeySource::Generated, Loss::Accepted).unwrap();
    assert_eq!(store.accounts(None, ALL).await.unwrap().total, 0);
    assert!(directory.path().join("store.damaged.1/0.jnl").exists());
}

#[tokio::test]
async fn a_store_from_before_there_were_witnesses_gets_one() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/store-v1");
    let directory = copy(&fixture);
    let store = open(directory.path());
    assert_eq!(Witness::read(directory.path()).unwrap(), Some(holdings(0, 1, 2)));
    store.remove_token(&TokenId([1; 32])).await.unwrap();
    store.close().await.unwrap();
    assert_eq!(Witness::read(directory.path()).unwrap(), Some(holdings(1, 1, 1)));
}

/// At any moment a kill may come: the witness on the disk then is no more than what the store on the disk holds.
#[tokio::test]
async fn a_kill_at_any_moment_leaves_a_store_that_opens() {
    let directory = state_dir();
    let store = open(directory.path());
    for round in 0..12_u8 {
        store
            .create_account(account(&format!("a{round}"), None, 1), password("sesame"))
            .await
            .unwrap();
        store
            .create_token(token(round, Some(&format!("a{round}"))))
            .await
            .unwrap();
        let killed = copy_in_order(directory.path());
        open(killed.path());
        if round % 2 == 0 {
            store.remove_account(&format!("a{round}")).await.unwrap();
        } else {
            store.remove_token(&TokenId([round; 32])).await.unwrap();
        }
        let killed = copy_in_order(directory.path());
        open(killed.path());
    }
}

/// A copy whose witness is no newer than its store, as no kill could leave it otherwise.
fn copy_in_order(from: &Path) -> TempDir {
    let witness = fs::read(from.join(WITNESS)).unwrap();
    let copied = copy(from);
    fs::write(copied.path().join(WITNESS), witness).unwrap();
    copied
}
