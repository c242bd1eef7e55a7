/** An event bus for entity changes, for programs that have none of their own. */
import { setTimeout as sleep } from 'node:timers/promises';

import { checkFunction, checkNonEmptyString, invalidArgument } from '../check';
import { messageOf, quietLogger } from './logging';
import { storeInternals } from './store-core';
import { ENTITY_CHANGED_HOOK } from './subscriptions';
import type { EntityChangeBus, EntityChangeBusArgs, EntityChanged, EntityChangedUnsubscribe, OnHookFn } from './types';

const RETRIES_DEFAULT = 3;
const FIRST_WAIT_MS = 50;
const LONGEST_WAIT_MS = 5000;

type Hear = (payload: EntityChanged) => unknown;

interface Group {
  readonly members: { hear: Hear; maxRetries: number }[];
  /** Whose turn it is. */
  turn: number;
}

/**
 * Makes a bus: `emit` is what `emitter.wire` takes, `onHook` what `subscriptions.wire` takes.
 *
 * - `broadcast` (the default): every listener of every process hears each change. Those of other processes need a store over Postgres
 *   with `outbox` or `journal`; without one, each process hears its own.
 * - `work-queue`: one listener of each group hears a change, in the process that made it. If it fails it is called again, at most
 *   `maxRetries` times (3), after 50 ms, doubling to 5 s; then `emit` rejects, and a store with `outbox` or `journal` delivers the change
 *   again. If the process dies before that, whoever takes its changes over does it.
 * - `instance-local`: hears what its own process made.
 *
 * `close()` ends all of that; what a work queue would have tried again rejects with what it failed with.
 *
 * A listener that throws in one of the other two modes is reported to `logger`, and stops nobody else.
 *
 * @example
 * ```ts
 * const bus = createEntityChangeBus({ store, logger: console });
 * await emitter.wire(bus.emit);
 * subscriptions.wire({ onHook: bus.onHook, logger: console });
 * ```
 */
export function createEntityChangeBus(args: EntityChangeBusArgs = {}): EntityChangeBus {
  const { store } = args;
  const logger = quietLogger(args.logger);
  const everywhere = new Set<Hear>();
  const here = new Set<Hear>();
  const groups = new Map<string, Group>();
  /** Ends the waits between two tries. */
  const closing = new AbortController();
  const unlisten = store && storeInternals(store)?.listen((change, elsewhere) => {
    if (elsewhere) void tell(everywhere, change);
  });

  async function tell(listeners: Iterable<Hear>, change: EntityChanged): Promise<void> {
    await Promise.all(
      [...listeners].map(async (hear) => {
        try {
          await hear(change);
        } catch (error) {
          logger?.warn(`a listener of entity changes threw at ${change.kind}:${change.id}: ${messageOf(error)}`);
        }
      }),
    );
  }

  const onHook: OnHookFn = (hook, listener, options = {}) => {
    if (hook?.id !== ENTITY_CHANGED_HOOK.id) throw invalidArgument('hook', `{ id: '${ENTITY_CHANGED_HOOK.id}' }`, hook);
    checkFunction(listener, 'listener');
    // An object of its own per subscription: the same function twice is two listeners.
    const hear: Hear = (payload) => listener(payload as never);
    if (options.mode !== 'work-queue') {
      const listeners = options.mode === 'instance-local' ? here : everywhere;
      listeners.add(hear);
      return async () => void listeners.delete(hear);
    }
    checkNonEmptyString(options.workerGroup, 'workerGroup');
    const group = groups.get(options.workerGroup) ?? { members: [], turn: 0 };
    groups.set(options.workerGroup, group);
    const member = { hear, maxRetries: options.maxRetries ?? RETRIES_DEFAULT };
    group.members.push(member);
    const leave: EntityChangedUnsubscribe = async () => {
      const place = group.members.indexOf(member);
      if (place >= 0) group.members.splice(place, 1);
    };
    return leave;
  };

  return {
    async emit(change) {
      const queued = [...groups.values()].filter(({ members }) => members.length > 0).map((group) => handOut(group, change, closing.signal));
      const outcomes = await Promise.allSettled([tell([...here, ...everywhere], change), ...queued]);
      const failed = outcomes.find((outcome) => outcome.status === 'rejected');
      if (failed) throw failed.reason;
    },
    onHook,
    close() {
      unlisten?.();
      closing.abort();
      everywhere.clear();
      here.clear();
      groups.clear();
    },
  };
}

/** Has one member of a group handle a change; the others take their turn if it fails, unless the bus is closed by then. */
async function handOut(group: Group, change: EntityChanged, closed: AbortSignal): Promise<void> {
  let wait = FIRST_WAIT_MS;
  for (let attempt = 0; ; attempt++) {
    const member = group.members[group.turn++ % group.members.length];
    if (member === undefined) return;
    try {
      await member.hear(change);
      return;
    } catch (error) {
      if (attempt >= member.maxRetries || closed.aborted) throw error;
      await sleep(wait, undefined, { signal: closed }).catch(() => {});
      if (closed.aborted) throw error;
    }
    wait = Math.min(wait * 2, LONGEST_WAIT_MS);
  }
}
