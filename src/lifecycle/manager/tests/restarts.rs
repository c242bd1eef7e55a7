//! What was decided before the store was closed still holds after it was opened again.

use super::*;

/// A store in a file, with a session that works; and the same store, closed and opened again.
fn in_file(folder: &tempfile::TempDir) -> World {
    let mut world = World::on(Connection::open(folder.path().join("sessions.db")).unwrap());
    world.session(SessionState::Working);
    world
}

fn reopened(mut world: World, folder: &tempfile::TempDir) -> World {
    let db = Connection::open(folder.path().join("sessions.db")).unwrap();
    std::mem::replace(&mut world.db, db).close().unwrap();
    world
}

#[test]
fn quarantine_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = in_file(&folder);
    world.probe("failed", "failed");
    let before = world.record();
    let mut world = reopened(world, &folder);
    assert_eq!(world.record(), before);
    assert_eq!(world.record().lifecycle.detecting.unwrap().attempts, 1);
    world.probe("failed", "failed");
    assert_eq!(world.record().lifecycle.detecting.unwrap().attempts, 2);
    world.probe("alive", "alive");
    let lifecycle = world.record().lifecycle;
    assert_eq!((lifecycle.state, lifecycle.detecting), (SessionState::Working, None));
}

#[test]
fn budgets_slots_and_clocks_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = in_file(&folder);
    world.poll(json!({ "mergeability": "conflicting" }));
    assert_eq!(world.types(), ["reaction.merge-conflicts"]);
    world.now = NOW + 5 * MINUTE;
    let mut world = reopened(world, &folder);
    world.poll(json!({ "mergeability": "conflicting" }));
    assert!(world.news().is_empty());
    world.now = NOW + 15 * MINUTE;
    world.tick();
    assert_eq!(world.types(), ["reaction.escalated"]);
    let mut world = reopened(world, &folder);
    world.now = NOW + 60 * MINUTE;
    world.tick();
    assert!(world.news().is_empty());
}

#[test]
fn what_did_not_arrive_is_still_to_be_delivered() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = in_file(&folder);
    world.poll(failing("c1"));
    world.news();
    // Killed between the commit and the call of the port: the lease has to run out.
    let input: pr::Observe = world.input(json!({ "observation": {
        "fetched": true, "url": URL, "ci": "failing", "checks": [check("c2", "failed", "second")] } }));
    assert_eq!(world.write(|sql| pr::observe(sql, &input)).unwrap().deliveries.len(), 1);
    let mut world = reopened(world, &folder);
    world.now += 30_000;
    world.tick();
    assert!(world.news()[0].ends_with("Failing output:\nsecond"));
}
