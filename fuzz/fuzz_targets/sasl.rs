//! Any responses in any mechanism: an outcome, a bounded number of questions, and no name that could break out of a line.

#![no_main]

use libfuzzer_sys::fuzz_target;
use portreeve::proto::Mechanism;
use portreeve::proto::sasl::client::{Exchange, Outcome};

fuzz_target!(|data: &[u8]| {
    let Some((&choice, rest)) = data.split_first() else {
        return;
    };
    let mechanism = Mechanism::ALL[usize::from(choice) % Mechanism::ALL.len()];
    let mut responses = rest.split(|&byte| byte == b'\n');
    let initial = if choice & 0x80 == 0 { None } else { responses.next() };
    let mut outcome = Exchange::begin(mechanism, initial);
    let mut questions = 0;
    while let Outcome::Ask(_, exchange) = outcome {
        questions += 1;
        assert!(questions <= 2);
        let Some(response) = responses.next() else { return };
        outcome = exchange.respond(response);
    }
    if let Outcome::Login(request) = outcome {
        assert!(
            request
                .user
                .is_none_or(|user| !user.is_empty() && !user.contains(char::is_control))
        );
        assert_eq!(request.mechanism, Some(mechanism));
    }
});
