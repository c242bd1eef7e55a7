//! What was told last, in short. Where one pull request counts it is a text of its own (a commit, ids of comments); where several do,
//! a JSON object that has such a text of each, by its address: what one of them says must not make the other's news again.

use std::collections::BTreeMap;

/// What was told of each pull request; of a text that is of none in particular, nothing.
pub fn told(stored: Option<&str>) -> BTreeMap<String, String> {
    stored.and_then(parsed).unwrap_or_default()
}

fn parsed(text: &str) -> Option<BTreeMap<String, String>> {
    // Neither a commit nor the ids of comments begin like that.
    if text.starts_with('{') { serde_json::from_str(text).ok() } else { None }
}

/// As it is stored.
pub fn text(told: &BTreeMap<String, String>) -> String {
    serde_json::to_string(told).unwrap_or_default()
}

/// Whether `signature` is what was told last of the pull request `url`.
pub fn has(stored: Option<&str>, url: &str, signature: &str) -> bool {
    match stored.map(|text| (text, parsed(text))) {
        None => false,
        Some((_, Some(told))) => told.get(url).is_some_and(|last| last == signature),
        Some((text, None)) => text == signature,
    }
}

/// Whether something was told of another pull request than `url`.
pub fn is_of_another(stored: Option<&str>, url: &str) -> bool {
    told(stored).keys().any(|other| other != url)
}

/// `stored`, with `signature` as what was told last of `url`.
pub fn with(stored: Option<&str>, url: &str, signature: String) -> String {
    let mut told = told(stored);
    told.insert(url.to_owned(), signature);
    text(&told)
}

/// Forgets what was told of pull requests that `wanted` says no to.
pub fn keep(stored: &mut Option<String>, mut wanted: impl FnMut(&str) -> bool) {
    let Some(mut told) = stored.as_deref().and_then(parsed) else { return };
    let before = told.len();
    told.retain(|url, _| wanted(url));
    if told.len() < before {
        *stored = Some(text(&told));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pull_request_has_its_own() {
        let one = with(None, "a", "c1".into());
        let both = with(Some(&one), "b", "c1".into());
        assert!(has(Some(&both), "a", "c1") && has(Some(&both), "b", "c1") && !has(Some(&both), "c", "c1"));
        assert!(!has(Some(&one), "b", "c1") && is_of_another(Some(&both), "a") && !is_of_another(Some(&one), "a"));
        let mut kept = Some(both);
        keep(&mut kept, |url| url == "b");
        assert_eq!(kept.as_deref(), Some(r#"{"b":"c1"}"#));
        keep(&mut kept, |_| false);
        assert_eq!(kept.as_deref(), Some("{}"));
    }

    #[test]
    fn a_text_of_one_pull_request_is_compared_as_it_is() {
        assert!(has(Some("c1"), "a", "c1") && !has(Some("c1"), "a", "c2") && !has(None, "a", ""));
        assert!(has(Some(""), "a", "") && !is_of_another(Some("c1"), "a"));
        // A comment may have any id.
        assert!(has(Some("{odd"), "a", "{odd"));
        let mut plain = Some("c1".to_owned());
        keep(&mut plain, |_| false);
        assert_eq!(plain.as_deref(), Some("c1"));
        assert_eq!(with(Some("c1"), "a", "c2".into()), r#"{"a":"c2"}"#);
    }
}
