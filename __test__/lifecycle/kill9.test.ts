// @pool forks: what counts happens in processes of its own.
// SIGKILL under load (check 33; T1): what was acknowledged is there, what was not is there whole or not at all, and the log agrees with the
// rows. The truth is what the killed process had said before it died; what is stored is read by a fresh one.
import { setTimeout as sleep } from 'node:timers/promises';

import { LifecycleManager, openSessionStore } from 'holdfast';
import { describe, expect, test } from 'vitest';

import { SHARED, ask, start } from './children';

/** What the child says of one step: about a new session, an activity, a pull request, or a deletion. */
interface Step {
  id: string;
  prompt?: string;
  activity?: string;
  url?: string;
  ci?: string;
  step?: number;
  comments?: number;
  deleted?: true;
}

interface Change {
  seq: number;
  sessionId: string;
  type: string;
  payload: Record<string, unknown>;
}

interface Found {
  sessions: { id: string; revision: number; lifecycle: { state: string; isAlive: boolean; terminationReason: string; activity: { state: string } }; metadata: { prompt: string } }[];
  changes: Change[];
  prs: { url: string; sessionId: string; number: number; state: string; ciState: string; reviewDecision: string; mergeability: string; checks: { name: string; commitHash: string; status: string }[]; comments: { commentId: string }[] }[];
  head: number;
  check: { sound: boolean; problems: string[] };
}

/** What one process did: per session, what it had finished, and what it may have. */
function toldBy(lines: string[]): Map<string, { done: Step[]; begun: Step | undefined }> {
  const told = new Map<string, { done: Step[]; begun: Step | undefined }>();
  for (const line of lines) {
    const [, word, json] = /^(begin|ack) (.*)$/.exec(line) ?? [];
    if (json === undefined) continue;
    const step = JSON.parse(json) as Step;
    const known = told.get(step.id) ?? { done: [], begun: undefined };
    told.set(step.id, known);
    if (word === 'begin') known.begun = step;
    else {
      known.done.push(step);
      known.begun = undefined;
    }
  }
  return told;
}

/** What is wrong with what was found, one line each. */
function violations(told: ReturnType<typeof toldBy>, found: Found): string[] {
  const wrong: string[] = found.check.problems.map((problem) => `check: ${problem}`);
  const rows = new Map(found.sessions.map((session) => [session.id, session]));
  const prs = new Map(found.prs.map((pr) => [pr.url, pr]));
  const events = new Map<string, Change[]>();
  found.changes.forEach((change, at) => {
    if (change.seq !== at + 1) wrong.push(`seq ${change.seq} at place ${at}`);
    events.set(change.sessionId, [...(events.get(change.sessionId) ?? []), change]);
  });
  if (found.head !== found.changes.length) wrong.push(`head ${found.head}, ${found.changes.length} changes`);

  // Rows and events say the same, whatever was told.
  for (const [id, own] of events) {
    const row = rows.get(id);
    if (own[0]!.type !== 'session_created') wrong.push(`${id} begins with ${own[0]!.type}`);
    const last = own.filter(({ type }) => type.startsWith('session_')).at(-1)!;
    if (last.type === 'session_deleted') {
      if (row !== undefined) wrong.push(`${id} was deleted and is there`);
      if ([...prs.values()].some(({ sessionId }) => sessionId === id)) wrong.push(`${id} was deleted, its pull request was not`);
      continue;
    }
    if (row === undefined) {
      wrong.push(`${id} has events and no row`);
      continue;
    }
    const { state, terminationReason, isAlive, activity } = row.lifecycle;
    const said = JSON.stringify(last.payload);
    const is = JSON.stringify({ id, state, terminationReason, isAlive: Number(isAlive), activity: activity.state });
    if (said !== is) wrong.push(`${id}: the last event says ${said}, the row ${is}`);
    for (const pr of prs.values()) {
      if (pr.sessionId !== id) continue;
      const lastPr = own.filter(({ type, payload }) => type.startsWith('pr_') && payload.url === pr.url).at(-1);
      const prIs = { url: pr.url, session: id, state: pr.state, ci: pr.ciState, review: pr.reviewDecision, mergeability: pr.mergeability };
      if (JSON.stringify(lastPr?.payload) !== JSON.stringify(prIs)) wrong.push(`${pr.url}: the last event says ${JSON.stringify(lastPr?.payload)}`);
      for (const { name, commitHash, status } of pr.checks) {
        const run = own.filter(({ type, payload }) => type === 'pr_check_recorded' && payload.pr === pr.url && payload.commit === commitHash).at(-1);
        if (run?.payload.status !== status || run.payload.name !== name) wrong.push(`${pr.url} ${commitHash}: ${status}, the last event ${JSON.stringify(run)}`);
      }
    }
  }
  for (const id of rows.keys()) if (!events.has(id)) wrong.push(`${id} has a row and no event`);

  // What was acknowledged is there; the step that was under way happened whole or not at all.
  for (const [id, { done, begun }] of told) {
    const row = rows.get(id);
    const deleted = done.some((step) => step.deleted);
    if (deleted !== (row === undefined) && !(begun?.deleted && !deleted)) wrong.push(`${id}: acknowledged ${deleted ? 'deleted' : 'stored'}, is not so`);
    if (row === undefined) continue;
    const prompt = done.find((step) => step.prompt !== undefined)?.prompt;
    if (row.metadata.prompt !== prompt) wrong.push(`${id}: prompt ${row.metadata.prompt}, acknowledged ${prompt}`);
    const activity = done.filter((step) => step.activity !== undefined).at(-1)?.activity ?? 'idle';
    if (row.lifecycle.activity.state !== activity && row.lifecycle.activity.state !== begun?.activity) wrong.push(`${id}: ${row.lifecycle.activity.state}, acknowledged ${activity}`);
    const seen = done.filter((step) => step.url !== undefined).at(-1);
    const pr = prs.get(`https://x/${id}`);
    const fits = (step: Step | undefined): boolean =>
      step === undefined ? pr === undefined : pr?.number === step.step && pr?.ciState === step.ci && pr?.comments.length === step.comments && pr?.checks.some(({ commitHash }) => commitHash === `c${step.step}`) === true;
    if (!fits(seen) && !(begun?.url !== undefined && fits(begun))) wrong.push(`${id}: pull request ${JSON.stringify(pr)}, acknowledged ${JSON.stringify(seen)}, under way ${JSON.stringify(begun)}`);
  }
  return wrong;
}

describe.each(SHARED)('on $name', ({ name, make }) => {
  test('33: killed under load, again and again: nothing acknowledged is lost, nothing is half there', async () => {
    const place = await make();
    const rounds = name === 'SQLite' ? 20 : 6;
    const told = new Map<string, { done: Step[]; begun: Step | undefined }>();
    let acknowledged = 0;
    for (let round = 1; round <= rounds; round++) {
      const child = start(place, 'load', String(round * 7919));
      await child.line('ack');
      // By the work done, not by the clock: on a busy machine little is done in a while.
      const enough = 6 + ((round * 7) % 25);
      while (child.lines.filter((line) => line.startsWith('ack')).length < enough) await sleep(1);
      await sleep((round * 37) % 11);
      await child.kill();
      const before = told.size;
      for (const [id, steps] of toldBy(child.lines)) {
        // A number of a session that was acknowledged before would be given twice.
        expect(told.has(id), `round ${round}: ${id} was given again`).toBe(false);
        told.set(id, steps);
        acknowledged += steps.done.length;
      }
      expect(told.size, `round ${round} did nothing`).toBeGreaterThan(before);
      // Not after every round, as that would only show what the next one shows too.
      if (round % 4 !== 0 && round !== rounds) continue;
      const found = await ask<Found>(place, 'found', 'verify');
      expect(violations(told, found), `round ${round}`).toEqual([]);
    }
    expect(acknowledged).toBeGreaterThan(rounds * 5);
  });

  test('killed while the place is made: whoever comes next makes it whole', async () => {
    const place = await make();
    let unmade = 0;
    for (let round = 0; round < 8; round++) {
      const child = start(place, 'once');
      // From before it is loaded to after it has begun.
      await Promise.race([child.line('closed').catch(() => {}), sleep(60 + round * 25)]);
      if (!child.lines.includes('closed')) unmade++;
      await child.kill();
    }
    const found = await ask<Found>(place, 'found', 'verify');
    expect(found.check.problems).toEqual([]);
    expect(found.changes).toHaveLength(found.sessions.length);
    expect(unmade).toBeGreaterThan(0);
  });

  test('killed while it tells somebody: the next process tells it, once the other can no longer be at it', async () => {
    const place = await make();
    const child = start(place, 'tell', 'notifier.notify');
    expect(await child.line('step')).toBe('notifier.notify');
    await child.kill();
    await using store = await openSessionStore(place);
    expect((await store.getSession('mer-1'))!.lifecycle.state).toBe('needs_input');
    const told: string[] = [];
    const notifier = { notify: async ({ type, sessionId }: { type: string; sessionId: string }) => void told.push(`${sessionId} ${type}`) };
    const tickIn = (ms: number) => new LifecycleManager({ store, notifier, clock: () => new Date(Date.now() + ms) }).tickEscalations();
    await tickIn(0);
    expect(told).toEqual([]);
    await tickIn(31_000);
    await tickIn(70_000);
    expect(told).toEqual(['mer-1 reaction.agent-needs-input']);
  });
});

test('the verifier finds what it is for', () => {
  const lifecycle = { state: 'working', isAlive: true, terminationReason: '', activity: { state: 'active' } };
  const payload = { id: 'mer-1', state: 'working', terminationReason: '', isAlive: 1, activity: 'active' };
  const sound = (): Found => ({
    sessions: [{ id: 'mer-1', revision: 1, lifecycle: structuredClone(lifecycle), metadata: { prompt: 'a 0' } }],
    changes: [
      { seq: 1, sessionId: 'mer-1', type: 'session_created', payload },
      { seq: 2, sessionId: 'mer-1', type: 'session_updated', payload },
    ],
    prs: [],
    head: 2,
    check: { sound: true, problems: [] },
  });
  const told = toldBy(['ready', 'ack {"id":"mer-1","prompt":"a 0"}', 'begin {"id":"mer-1","activity":"active"}', 'ack {"id":"mer-1","activity":"active"}']);
  const broken = (change: (found: Found) => void): string[] => {
    const found = sound();
    change(found);
    return violations(told, found);
  };
  expect(broken(() => {})).toEqual([]);
  expect(broken((found) => (found.sessions[0]!.lifecycle.activity.state = 'idle'))).toHaveLength(2);
  expect(broken((found) => (found.sessions[0]!.metadata.prompt = ''))).toHaveLength(1);
  expect(broken((found) => void found.changes.pop())).not.toEqual([]);
  expect(broken((found) => (found.sessions = []))).toHaveLength(2);
  const lost = toldBy(['ack {"id":"mer-1","prompt":"a 0"}', 'ack {"id":"mer-1","activity":"active"}', 'ack {"id":"mer-1","url":"u","ci":"failing","step":1,"comments":0}']);
  expect(violations(lost, sound())).toHaveLength(1);
});
