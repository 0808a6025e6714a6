//! The page that a browser is shown which came back to the command's own listener. Pure.
//!
//! It looks as the pages of the public side do: to the mailbox's owner both are the same service.

use crate::web::STYLE;

/// The page: whether it is good news, `title`, and what is to be said below it, which may come from outside.
pub(super) fn page(is_good: bool, title: &str, text: &str) -> String {
    let (title, text) = (escape(title), escape(text));
    let class = if is_good { "good" } else { "bad" };
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n\
         <body>\n<main class=\"{class}\">\n<h1>{title}</h1>\n<p>{text}</p>\n</main>\n\
         <footer>Portreeve on this machine</footer>\n</body>\n</html>\n"
    )
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_provider_said_is_text_and_never_markup() {
        let html = page(false, "Not authorized", "<script>alert('x')</script> & \"more\"\r\n");
        assert!(
            html.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &quot;more&quot;  </p>"),
            "{html}"
        );
        assert_eq!(html.matches("<script").count(), 0);
    }
}
