use super::*;

#[test]
fn a_wrong_word_names_its_column_and_what_is_allowed() {
    let error = pr(PrInput { url: "u".into(), ci_state: Some("red".into()), ..PrInput::default() }, 0).unwrap_err();
    assert_eq!(error.code(), Code::LifecycleConstraint);
    assert_eq!(error.fields().get("column").unwrap(), "ci_state");
    assert_eq!(error.fields().get("constraint").unwrap(), "check");
    assert!(error.message().contains("'passing'"), "{error}");
    let ok = pr(PrInput { url: "u".into(), ci_state: Some(String::new()), ..PrInput::default() }, 7).unwrap();
    assert_eq!((ok.ci_state, ok.state, ok.updated_at), (CiState::Unknown, PrState::Open, 7));
}

#[test]
fn reasons_and_memories_belong_to_their_states() {
    let reason = LifecycleInput { termination_reason: Some("pr_merged".into()), ..LifecycleInput::default() };
    assert_eq!(reason.record(&[]).unwrap_err().fields().get("column").unwrap(), "termination_reason");
    let memory = Detecting { attempts: 1, started_at: 0, evidence_hash: "x".into() };
    let detecting = LifecycleInput { detecting: Some(memory), ..LifecycleInput::default() };
    assert_eq!(detecting.record(&[]).unwrap_err().fields().get("column").unwrap(), "detecting_attempts");
    let agent = LifecycleInput { harness: "mine".into(), ..LifecycleInput::default() };
    assert!(agent.clone().record(&[]).is_err());
    assert!(agent.record(&["mine".into()]).is_ok());
}

#[test]
fn the_last_of_two_comments_counts_with_the_time_of_the_first() {
    let comment = |id: &str, body: &str, at| CommentInput {
        comment_id: id.into(),
        body: body.into(),
        created_at: at,
        ..CommentInput::default()
    };
    let stored = comments("u", &[comment("b", "old", None)], &[], 5);
    let set =
        comments("u", &[comment("a", "1", Some(3)), comment("b", "2", None), comment("a", "3", Some(9))], &stored, 8);
    let seen: Vec<_> = set.iter().map(|c| (c.comment_id.as_str(), c.body.as_str(), c.created_at)).collect();
    assert_eq!(seen, [("a", "3", 3), ("b", "2", 5)]);
}
