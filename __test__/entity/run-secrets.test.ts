// The secrets of runs (A29), and services that hand them out (R34).
import { describe, expect, it, vi } from 'vitest';
import { createRunSecretRegistry, secretsOfRun } from '../../src-js/entity/run-secrets';
import { wrapGetServiceForRun } from '../../src-js/entity/run-services';
import type { GetService } from '../../src-js/entity/types';

describe('createRunSecretRegistry', () => {
  it('masks for each run with its own secrets', () => {
    const registry = createRunSecretRegistry();
    registry.register('a', ['alpha-secret']);
    registry.register('b', ['beta-secret']);
    expect(registry.maskText('a', 'alpha-secret beta-secret')).toBe('**** beta-secret');
    expect(registry.maskDeep('b', { k: ['alpha-secret', 'beta-secret'] })).toEqual({ k: ['alpha-secret', '****'] });
  });

  it('adds to what a run has, also after it was used', () => {
    const registry = createRunSecretRegistry();
    registry.register('a', ['first-one']);
    expect(registry.maskText('a', 'first-one second-one')).toBe('**** second-one');
    registry.register('a', new Set(['second-one']));
    expect(registry.maskText('a', 'first-one second-one')).toBe('**** ****');
    expect(registry.maskDeep('a', ['second-one'])).toEqual(['****']);
  });

  it('leaves everything as it is for an unknown run or step, and for a run without secrets', () => {
    const registry = createRunSecretRegistry();
    registry.register('empty', []);
    registry.register('short', ['abc', '', 7 as unknown as string]);
    const value = { a: 'abc7' };
    for (const run of ['unknown', 'empty', 'short']) {
      expect(registry.maskText(run, 'abc7')).toBe('abc7');
      expect(registry.maskDeep(run, value)).toBe(value);
    }
    expect(registry.maskTextForStep('unknown', 'abc7')).toBe('abc7');
    expect(registry.maskDeepForStep('unknown', value)).toBe(value);
  });

  it('knows the run of a step; the last link counts', () => {
    const { register, linkStep, maskTextForStep, maskDeepForStep } = createRunSecretRegistry();
    register('a', ['alpha-secret']);
    register('b', ['beta-secret']);
    linkStep('step', 'a');
    expect(maskTextForStep('step', 'alpha-secret')).toBe('****');
    linkStep('step', 'b');
    expect(maskTextForStep('step', 'alpha-secret beta-secret')).toBe('alpha-secret ****');
    expect(maskDeepForStep('step', ['beta-secret'])).toEqual(['****']);
  });

  it('hands out one array of secrets for as long as a run has the same ones', () => {
    // Whoever compiles the secrets of a run keeps the result by this array.
    const registry = createRunSecretRegistry();
    const valuesOf = (run: string): readonly string[] => secretsOfRun(registry, run)!.values;
    registry.register('a', ['first-one']);
    registry.register('b', ['first-one']);
    const first = valuesOf('a');
    registry.register('a', ['first-one', '', 7 as unknown as string]);
    registry.register('b', ['other-one']);
    expect(registry.maskText('a', 'first-one')).toBe('****');
    expect(valuesOf('a')).toBe(first);
    expect(valuesOf('b')).not.toBe(first);
    registry.register('a', ['second-one']);
    const second = valuesOf('a');
    expect(second).not.toBe(first);
    expect([first, second]).toEqual([['first-one'], ['first-one', 'second-one']]);
    expect(valuesOf('a')).toBe(second);
    // The same name again is another run: nothing that was kept of the old one may serve it.
    registry.drop('a');
    registry.register('a', ['first-one', 'second-one']);
    expect(valuesOf('a')).not.toBe(second);
    expect(valuesOf('unknown')).toBe(valuesOf('another'));
  });

  it('forgets a run and its steps, and only those', () => {
    const registry = createRunSecretRegistry();
    registry.register('a', ['alpha-secret']);
    registry.register('b', ['beta-secret']);
    registry.linkStep('1', 'a');
    registry.linkStep('2', 'b');
    registry.drop('a');
    registry.drop('unknown');
    expect(registry.maskText('a', 'alpha-secret')).toBe('alpha-secret');
    expect(registry.maskTextForStep('2', 'beta-secret')).toBe('****');
    // A new run of that name does not get the old one's steps.
    registry.register('a', ['alpha-secret']);
    expect(registry.maskText('a', 'alpha-secret')).toBe('****');
    expect(registry.maskTextForStep('1', 'alpha-secret')).toBe('alpha-secret');
  });
});

describe('secretsOfRun', () => {
  it('gives what can be masked, and a version that changes with it', () => {
    const registry = createRunSecretRegistry();
    expect(secretsOfRun(registry, 'a')).toEqual({ values: [], version: 0 });
    registry.register('a', ['secret-1', 'abc', 'secret-1']);
    const first = secretsOfRun(registry, 'a');
    expect(first?.values).toEqual(['secret-1']);
    registry.register('a', ['secret-1']);
    expect(secretsOfRun(registry, 'a')?.version).toBe(first?.version);
    registry.register('a', ['secret-2']);
    const second = secretsOfRun(registry, 'a');
    expect(second?.values).toEqual(['secret-1', 'secret-2']);
    registry.drop('a');
    registry.register('a', ['secret-3']);
    const versions = [0, first?.version, second?.version, secretsOfRun(registry, 'a')?.version];
    expect(new Set(versions).size).toBe(4);
  });

  it('does not claim to know a registry that somebody changed or wrote', () => {
    const registry = createRunSecretRegistry();
    registry.register('a', ['secret-1']);
    expect(secretsOfRun({ ...registry, maskText: () => 'x' }, 'a')).toBeUndefined();
  });
});

describe('wrapGetServiceForRun', () => {
  const wrap = (services: Record<string, unknown>) => {
    const registry = createRunSecretRegistry();
    const inner = (async (ref: { id: string }) => services[ref.id]) as GetService;
    const getService = wrapGetServiceForRun({ getService: inner, runId: 'run', registry, resolverRefId: 'resolver', connectionStoreRefId: 'connections' });
    return { registry, get: (id: string) => getService<Record<string, (...args: unknown[]) => Promise<unknown>>>({ id }), known: () => secretsOfRun(registry, 'run')?.values };
  };

  it('registers what a resolver resolves, before the caller has it', async () => {
    const forRun = { env: { TOKEN: 'env-secret', PORT: 8080 }, name: 'not-a-secret' };
    const bySchema = { resolved: { a: 'deep-secret', b: [{ c: 'deeper-secret' }], n: 1 }, note: 'not-a-secret' };
    const service = {
      resolveSecret: async (name: unknown) => `secret-of-${String(name)}`,
      resolveForRun: async () => forRun,
      resolveBySchema: async () => bySchema,
      describe: () => 'plain',
    };
    const { get, known } = wrap({ resolver: service });
    const resolver = await get('resolver');
    expect(await resolver['resolveSecret']?.('x')).toBe('secret-of-x');
    expect(known()).toEqual(['secret-of-x']);
    expect(await resolver['resolveForRun']?.()).toBe(forRun);
    expect(await resolver['resolveBySchema']?.()).toBe(bySchema);
    expect(new Set(known())).toEqual(new Set(['secret-of-x', 'env-secret', 'deep-secret', 'deeper-secret']));
    expect(resolver['describe']).toBe(service.describe);
  });

  it('registers the config of a connection, with cycles in it', async () => {
    const config: Record<string, unknown> = { password: 'db-password', hosts: new Set(['host-1']), n: 1 };
    config['self'] = config;
    const { get, known } = wrap({ connections: { getConnectionWithCredentials: async () => ({ id: 'conn-1', config }) } });
    await (await get('connections'))['getConnectionWithCredentials']?.('conn-1');
    expect(new Set(known())).toEqual(new Set(['db-password', 'host-1']));
  });

  it('hands every other service on as it is', async () => {
    const services = { resolver: { resolveSecret: () => 1 }, connections: { other: () => 1 }, third: { resolveForRun: () => 1, resolveSecret: () => 1 }, none: undefined };
    const { get } = wrap(services);
    expect(await get('resolver')).toBe(services.resolver);
    expect(await get('connections')).toBe(services.connections);
    expect(await get('third')).toBe(services.third);
    expect(await get('none')).toBeUndefined();
  });

  it('works with private members, frozen services and methods that answer at once or fail', async () => {
    const error = new Error('mine');
    class Resolver {
      #secret = 'private-secret';
      get label(): string {
        return this.#secret.slice(0, 7);
      }
      resolveSecret(): string {
        return this.#secret;
      }
      async resolveForRun(): Promise<never> {
        throw error;
      }
    }
    const { get, known } = wrap({ resolver: new Resolver() });
    const resolver = await get('resolver');
    expect(await resolver['resolveSecret']?.()).toBe('private-secret');
    expect(known()).toEqual(['private-secret']);
    expect(resolver['label']).toBe('private');
    expect(resolver).toBeInstanceOf(Resolver);
    await expect(resolver['resolveForRun']?.()).rejects.toBe(error);

    const frozen = wrap({ resolver: Object.freeze({ resolveSecret: vi.fn(async () => 'frozen-secret'), resolveForRun: async () => ({}), other: 5 }) });
    const wrapped = await frozen.get('resolver');
    expect(await wrapped['resolveSecret']?.()).toBe('frozen-secret');
    expect(frozen.known()).toEqual(['frozen-secret']);
    expect(wrapped['other']).toBe(5);
  });
});
