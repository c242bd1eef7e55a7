/** What the managers need of their options. */
import { checkPlainObject, invalidArgument } from '../check';
import type { Logger } from '../logging';
import { checkLogger } from './logging';
import { coreOf, type StoreCore } from './native-store';
import { millisClock } from './time';

/** What every manager has. */
export interface Basis {
  readonly core: StoreCore;
  /** The time by the manager's clock, else by the store's. */
  readonly now: () => number;
  readonly logger: Logger | undefined;
}

/** Checks the options that all managers share. */
export function basisOf(options: { store: unknown; clock?: () => Date; logger?: Logger }): Basis {
  const { store, clock, logger } = checkPlainObject(options, 'options');
  const core = coreOf(store);
  if (core === undefined) throw invalidArgument('options.store', 'a store that openSessionStore() gave', store);
  if (clock !== undefined && typeof clock !== 'function') throw invalidArgument('options.clock', 'a function or undefined', clock);
  return {
    core,
    now: clock === undefined ? core.now : millisClock(clock, 'options.clock'),
    logger: checkLogger(logger, 'options.logger') ?? core.logger,
  };
}
