//! Hooks and token commands: their words and their environment.

use super::*;

#[test]
fn a_program_is_looked_for_in_the_path_or_beside_the_file() {
    let commands = |given: &str| {
        let text = format!(
            "[hooks]\ncommand = [\"{given}\"]\n[provider.google]\ngrant = \"external\"\ntoken_command = [\"{given}\", \"./as is\"]"
        );
        let config = parse(Some(Path::new("/etc/p/portreeve.toml")), &text, &user()).unwrap();
        let again = parse(None, &config.to_toml(), &user()).unwrap();
        assert_eq!(again.hooks.command, config.hooks.command);
        let grant = config.providers["google"].oauth.clone().unwrap().grant;
        let GrantType::External(External::Command(helper)) = grant else {
            panic!("a command was given")
        };
        assert_eq!(
            (&helper[..1], helper[1].as_str()),
            (&config.hooks.command[..], "./as is")
        );
        helper[0].clone()
    };
    assert_eq!(commands("pizauth"), "pizauth");
    assert_eq!(commands("/usr/bin/helper"), "/usr/bin/helper");
    assert_eq!(commands("bin/helper"), "/etc/p/bin/helper");
}

#[test]
fn a_program_is_given_the_variables_that_its_table_names_and_looked_for_in_their_path() {
    let text = "[hooks]\ncommand = [\"tell\"]\nenv = { PATH = \"/opt/bin\", KEY = \"5ecret\", LC_ALL = \"C\" }\n\
                [provider.google]\ngrant = \"external\"\ntoken_command = [\"helper\"]\nenv = { KEY = \"5ecret\" }\n";
    let stage = user();
    let config = parse(None, text, &stage).unwrap();
    let named: Vec<_> = config.hooks.env.iter().collect();
    assert_eq!(named, [("KEY", "5ecret"), ("LC_ALL", "C"), ("PATH", "/opt/bin")]);
    let app = config.providers["google"].oauth.as_ref().unwrap();
    assert_eq!(app.env.iter().collect::<Vec<_>>(), [("KEY", "5ecret")]);
    let examined = stage.examined.take();
    for expected in [
        "Program { program: \"tell\", search: Some(\"/opt/bin\") }",
        "Program { program: \"helper\", search: None }",
    ] {
        assert!(examined.iter().any(|seen| seen == expected), "{expected}: {examined:?}");
    }
    let shown = [config.to_toml(), config.to_json(), format!("{config:?}")].concat();
    assert!(!shown.contains("5ecret"), "{shown}");
    assert!(config.to_toml().contains("KEY = \"[redacted]\""), "{shown}");
    assert!(config.to_toml().contains("PATH = \"/opt/bin\""), "{shown}");
    let again = parse(None, &config.to_toml(), &user()).unwrap();
    assert_eq!(again.to_toml(), config.to_toml());
}

#[test]
fn variables_that_no_environment_can_hold_are_refused() {
    for (env, wanted) in [
        ("{ \"A B\" = \"x\" }", ":2: hooks.env: \"A B\" is no name of a variable"),
        ("{ 1A = \"x\" }", ":2: hooks.env: \"1A\" is no name of a variable"),
        ("{ A = \"x\\u0000y\" }", ":2: hooks.env: A holds a NUL"),
        ("{ A = 1 }", ":2: hooks.env.A: expected a string"),
        ("\"A=x\"", ":2: hooks.env: expected a table"),
    ] {
        let refusal = refusal(&format!("[hooks]\nenv = {env}"));
        assert!(refusal.contains(wanted), "wanted {wanted}\ngot {refusal}");
    }
    let refusal = refusal("[provider.google]\nclient_id = \"x\"\nenv = { A = \"x\" }");
    assert!(
        refusal.contains(":3: provider.google.env: is for token_command only"),
        "{refusal}"
    );
}
