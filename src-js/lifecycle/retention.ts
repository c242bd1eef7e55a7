/** The retention of a store, as callers give it. */
import { checkPlainObject, invalidArgument } from '../check';
import { checkCount, checkMillis } from './arguments';
import type { ChangeLogRetention } from './store-types';

/** Requires limits of the change log. */
export function checkRetention(limits: ChangeLogRetention, argument: string): ChangeLogRetention {
  const { maxAgeMs, maxRows, hard, notificationsMaxAgeMs } = checkPlainObject(limits, argument);
  if (hard !== undefined && typeof hard !== 'boolean') throw invalidArgument(`${argument}.hard`, 'a boolean', hard);
  return {
    ...(maxAgeMs !== undefined && { maxAgeMs: checkMillis(maxAgeMs, `${argument}.maxAgeMs`) }),
    ...(maxRows !== undefined && { maxRows: maxRows === Infinity ? Number.MAX_SAFE_INTEGER : checkCount(maxRows, `${argument}.maxRows`) }),
    ...(hard !== undefined && { hard }),
    ...(notificationsMaxAgeMs !== undefined && { notificationsMaxAgeMs: checkMillis(notificationsMaxAgeMs, `${argument}.notificationsMaxAgeMs`) }),
  };
}
