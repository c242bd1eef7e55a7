/** Brings messages where they belong, after what they are about was committed, and tells the store how that went. */
import { performance } from 'node:perf_hooks';
import type { Logger } from '../logging';
import { ReactionDeliveryError, type DeliveryFailure } from './errors';
import { messageOf } from './logging';
import type { StoreCore } from './native-store';
import type { Messenger, NotificationEvent, Notifier } from './port-types';
import { callPort } from './ports';
import type { SessionRecord } from './record-types';
import type { ProjectId, ReactionKey, SessionId } from './word-types';

/** A message that the store has handed to this caller, for 30 seconds. */
export interface Delivery {
  sessionId: SessionId;
  projectId: ProjectId;
  reaction: ReactionKey;
  token: string;
  to: 'agent' | 'human';
  type: string;
  priority: NotificationEvent['priority'];
  message: string;
}

/** After so many milliseconds somebody else may deliver what is still to be said: a little less than what the store grants. */
const GRANTED_MS = 25_000;

/** What delivers. */
export interface DeliveryPorts {
  readonly core: StoreCore;
  readonly now: () => number;
  readonly messenger: Messenger | undefined;
  readonly notifier: Notifier | undefined;
  /** Whether to look at the session again before something is typed into it. */
  readonly guard: boolean;
  readonly logger: Logger | undefined;
}

/** The messages of one manager. */
export class Deliveries {
  readonly #ports: DeliveryPorts;
  /** What a port has not finished with, with the token of the last time that it was handed out: saying the same again would be twice. */
  readonly #underWay = new Map<string, { token: string }>();

  constructor(ports: DeliveryPorts) {
    this.#ports = ports;
  }

  /**
   * Delivers: the messages of one session in order, sessions beside each other, so that one that hangs holds up its own only.
   *
   * @throws {ReactionDeliveryError} after all were tried
   */
  async deliver(deliveries: readonly Delivery[]): Promise<void> {
    if (deliveries.length === 0) return;
    const begun = performance.now();
    const failures: DeliveryFailure[] = [];
    const sessions = new Map<SessionId, Delivery[]>();
    for (const delivery of deliveries) {
      const others = sessions.get(delivery.sessionId);
      if (others === undefined) sessions.set(delivery.sessionId, [delivery]);
      else others.push(delivery);
    }
    const outcomes = await Promise.allSettled(
      Array.from(sessions.values(), async (own) => {
        for (const delivery of own) {
          if (performance.now() - begun > GRANTED_MS) return;
          await this.#deliverOne(delivery, failures);
        }
      }),
    );
    // That the store could not be told is worse than that a port failed: what was said may be said again.
    for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
    const [first] = failures;
    if (first === undefined) return;
    const message = `deliver ${first.reaction} for ${first.sessionId}: ${messageOf(first.cause)}`;
    throw new ReactionDeliveryError(message, { cause: first.cause, fields: { sessionId: first.sessionId, failures } });
  }

  async #deliverOne(delivery: Delivery, failures: DeliveryFailure[]): Promise<void> {
    const { sessionId, reaction, to, type, message } = delivery;
    const key = JSON.stringify([sessionId, type, reaction, message]);
    const other = this.#underWay.get(key);
    if (other !== undefined) {
      other.token = delivery.token;
      return;
    }
    const own = { token: delivery.token };
    this.#underWay.set(key, own);
    let ok = false;
    try {
      ok = await this.#say(delivery);
    } catch (cause) {
      if (this.#ports.core.closed) throw this.#ports.core.closedError();
      failures.push({ sessionId, reaction, to, cause });
    } finally {
      this.#underWay.delete(key);
    }
    await this.#ports.core.write({ do: 'settle', sessionId, reaction, token: own.token, ok, now: this.#ports.now() });
  }

  /** Tells whether the message is where it belongs, or there is nobody to take it. */
  async #say({ sessionId, projectId, to, type, priority, message, reaction }: Delivery): Promise<boolean> {
    const { core, messenger, notifier } = this.#ports;
    if (to === 'human') {
      if (notifier !== undefined) await callPort(() => notifier.notify({ type, priority, sessionId, projectId, message }), { core });
      return true;
    }
    if (messenger === undefined) return true;
    if (this.#ports.guard && !(await this.#listens(sessionId))) {
      this.#ports.logger?.debug(`deliver ${reaction} for ${sessionId}: it cannot be typed into now; it is tried again later`);
      return false;
    }
    await callPort(() => messenger.send(sessionId, message), { core });
    return true;
  }

  /** Whether what is typed into the session reaches the agent: not a shell that it has left, nor a question, which Enter would answer. */
  async #listens(sessionId: SessionId): Promise<boolean> {
    const session = JSON.parse(await this.#ports.core.read({ do: 'session', id: sessionId })) as SessionRecord | null;
    if (session === null) return false;
    const { state, activity } = session.lifecycle;
    const ended = state === 'terminated' || state === 'done' || activity.state === 'exited';
    return !ended && state !== 'needs_input' && activity.state !== 'waiting_input';
  }
}
