/** Arguments of a process registry. */
import { bad, checkId, checkIds, checkList, checkObject, checkText, checkWord, given } from './arguments';
import { ProcessRegistryError } from './errors';
import type { AwaitOutput, ProcessEventAppend, ProcessLease, ProcessRegistration, ProcessScope } from './process-types';

/** Requires a name that a process cannot do without. */
function named(value: unknown, argument: string, what: string): string {
  if (typeof value !== 'string' || value === '') throw new ProcessRegistryError(`${what} must be a non-empty string`, { fields: { argument } });
  return checkId(value, argument);
}

/** Requires a session or a frame of it. */
export function scopeOf(scope: ProcessScope, argument: string): ProcessScope {
  checkObject(scope, argument, ['sessionId', 'agentFrameId']);
  const sessionId = named(scope.sessionId, `${argument}.sessionId`, 'process scope');
  const frame = scope.agentFrameId as string | null | undefined;
  return frame === undefined || frame === null ? { sessionId } : { sessionId, agentFrameId: named(frame, `${argument}.agentFrameId`, 'process scope') };
}

/** Requires a registration. Event types are checked by the addon, where they are read anyway. */
export function registrationOf(registration: ProcessRegistration): object {
  checkObject(registration, 'registration');
  const id = named(registration.id, 'registration.id', 'process id');
  const { ownerScope, hostProfileId, causedBy } = checkObject(registration.provenance, 'registration.provenance', ['ownerScope', 'hostProfileId', 'causedBy']);
  return {
    id,
    input: given(registration.input, 'registration.input'),
    eventTypes: checkList(registration.eventTypes ?? [], 'registration.eventTypes').map((type, index) => {
      checkObject(type, `registration.eventTypes[${index}]`, ['name', 'payloadSchema', 'terminal', 'wake']);
      named(type.name, `registration.eventTypes[${index}].name`, 'process event type name');
      return type;
    }),
    provenance: {
      ownerScope: scopeOf(ownerScope, 'registration.provenance.ownerScope'),
      hostProfileId: named(hostProfileId, 'registration.provenance.hostProfileId', 'process host profile id'),
      causedBy: causedBy ?? undefined,
    },
  };
}

/** Requires an event. */
export function appendOf(request: ProcessEventAppend): { eventType: string; payload: unknown; replayKey?: string; wakeTargetScope?: ProcessScope } {
  checkObject(request, 'req', ['eventType', 'payload', 'replayKey', 'wakeTargetScope']);
  const replayKey = request.replayKey as string | null | undefined;
  const scope = request.wakeTargetScope as ProcessScope | null | undefined;
  return {
    eventType: checkId(request.eventType, 'req.eventType'),
    payload: given(request.payload, 'req.payload'),
    replayKey: replayKey === undefined || replayKey === null ? undefined : checkId(replayKey, 'req.replayKey'),
    wakeTargetScope: scope === undefined || scope === null ? undefined : scopeOf(scope, 'req.wakeTargetScope'),
  };
}

/** Requires the output of a process. */
export function outputOf(output: AwaitOutput): AwaitOutput {
  checkObject(output, 'output');
  const text = (name: string, value: unknown): string => checkText(value, `output.${name}`);
  switch (output.type) {
    case 'success':
      return { type: 'success', value: given(output.value, 'output.value') };
    case 'failure': {
      const { class: kind, code, message, raw } = output;
      return { type: 'failure', class: text('class', kind), code: text('code', code), message: text('message', message), raw };
    }
    case 'cancelled':
      return { type: 'cancelled', message: text('message', output.message), raw: output.raw };
    default:
      return checkWord((output as { type?: unknown }).type, 'output.type', ['success', 'failure', 'cancelled']) as never;
  }
}

/** The type of the event that ends a process with an output. */
export function terminalTypeOf(output: AwaitOutput): string {
  return `process.${{ success: 'completed', failure: 'failed', cancelled: 'cancelled' }[output.type]}`;
}

/** Requires what a handle is to be called. */
export function descriptorOf(descriptor: { kind?: string; label?: string }): { kind?: string; label?: string } {
  checkObject(descriptor, 'd', ['kind', 'label']);
  const text = (name: 'kind' | 'label'): string | undefined => {
    const value = descriptor[name] as string | null | undefined;
    return value === undefined || value === null ? undefined : checkText(value, `d.${name}`);
  };
  return { kind: text('kind'), label: text('label') };
}

/** Requires scopes and ids of a transfer. */
export function transferOf(from: ProcessScope, to: ProcessScope, ids: readonly string[]): object {
  return { from: scopeOf(from, 'from'), to: scopeOf(to, 'to'), ids: checkIds(ids, 'ids') };
}

/** What identifies a lease. */
export function leaseOf(lease: ProcessLease): object {
  checkObject(lease, 'lease');
  const version = lease.schemaVersion as unknown;
  if (!Number.isSafeInteger(version)) throw bad('lease.schemaVersion', 'a safe integer', version);
  return {
    schemaVersion: version,
    processId: checkId(lease.processId, 'lease.processId'),
    leaseToken: checkId(lease.leaseToken, 'lease.leaseToken'),
  };
}
