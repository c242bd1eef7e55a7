/** Faults on demand, so that applications can test their own recovery with the engine's real failure paths. */
import { checkArray, checkFiniteNumber, checkOneOf, checkString, invalidArgument, isRecord } from '../check';
import { callSync, native } from '../native';
import type { FaultRules } from './internals';

/**
 * One fault to inject into a writer or store. Rules belong to the handle that they are given to and cost nothing where there are
 * none.
 */
export interface RuntimeStoreFault {
  /** A step of the batch protocol, in their order. */
  point?:
    | 'after_lock'
    | 'after_stage_files'
    | 'after_commit_point'
    | 'between_publish'
    | 'after_publish'
    | 'before_cleanup'
    | 'in_undo'
    | 'in_recovery';
  /** Or a file operation. */
  op?: 'read' | 'stat' | 'list' | 'create' | 'write' | 'syncFile' | 'syncDir' | 'rename' | 'link' | 'remove' | 'createDir' | 'removeDir';
  /** Only operations on paths that end with this. */
  pathEnds?: string;
  /** Which occurrence, counted from 1; 0 means every one. Default 1. */
  nth?: number;
  /**
   * `'kill'` ends the process at once, as `kill -9` does; `{ errno }` fails with this number of the operating system (28 is "disk
   * full" on Linux); `{ pauseMs }` waits; `{ shortWrite }` lets a write take so many bytes at a time.
   */
  action: 'kill' | { errno: number } | { pauseMs: number } | { shortWrite: number };
}

const POINTS = ['after_lock', 'after_stage_files', 'after_commit_point', 'between_publish', 'after_publish', 'before_cleanup', 'in_undo', 'in_recovery'] as const;
const OPS = ['read', 'stat', 'list', 'create', 'write', 'syncFile', 'syncDir', 'rename', 'link', 'remove', 'createDir', 'removeDir'] as const;
const ACTIONS = ['errno', 'pauseMs', 'shortWrite'] as const;

/** Refuses a rule that could never hit: a crash test that never crashes proves nothing. */
function checkRule(rule: RuntimeStoreFault, argument: string): void {
  if (!isRecord(rule) || (rule.point === undefined) === (rule.op === undefined)) {
    throw invalidArgument(argument, 'a rule with either a point or an op', rule);
  }
  if (rule.point !== undefined) checkOneOf(rule.point, `${argument}.point`, POINTS);
  if (rule.op !== undefined) checkOneOf(rule.op, `${argument}.op`, OPS);
  if (rule.pathEnds !== undefined) checkString(rule.pathEnds, `${argument}.pathEnds`);
  if (rule.nth !== undefined) checkWhole(rule.nth, `${argument}.nth`);
  const { action } = rule;
  if (action === 'kill') return;
  if (!isRecord(action) || Object.keys(action).length !== 1) {
    throw invalidArgument(`${argument}.action`, "'kill', { errno }, { pauseMs } or { shortWrite }", action);
  }
  const [[name, value]] = Object.entries(action) as [[string, unknown]];
  checkWhole(value, `${argument}.action.${checkOneOf(name, `a key of ${argument}.action`, ACTIONS)}`);
}

function checkWhole(value: unknown, argument: string): void {
  if (!Number.isInteger(checkFiniteNumber(value, argument))) throw invalidArgument(argument, 'an integer of 0 or more', value);
}

/** Checks the rules and hands them to the engine. */
export function loadFaults(rules: RuntimeStoreFault[] | undefined, argument: string): FaultRules {
  if (rules === undefined) return undefined;
  checkArray(rules, argument);
  for (const [index, rule] of rules.entries()) checkRule(rule, `${argument}[${index}]`);
  return callSync(() => new native.Faults(JSON.stringify(rules)));
}
