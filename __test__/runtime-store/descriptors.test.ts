// Which stores exist: the original ten, and an application's own.
import { defineRuntimeStoreDescriptors, HoldfastError, OPENCODE_RUNTIME_STORE_DESCRIPTORS, type RuntimeStoreSchemaName } from 'holdfast';
import { describe, expect, it } from 'vitest';
import { caught } from './caught';

declare module 'holdfast' {
  interface RuntimeStoreOwnSchemaNames {
    'descriptors-test.cart': true;
  }
}

const cart = {
  schemaName: 'descriptors-test.cart',
  schemaVersion: 3,
  relativePath: 'shop/cart.json',
  criticality: 'diagnostic_only',
  owner: 'ui',
  rebuildStrategy: 'none',
} as const;

describe('OPENCODE_RUNTIME_STORE_DESCRIPTORS', () => {
  it('are those of the original format, in order', () => {
    const rows = OPENCODE_RUNTIME_STORE_DESCRIPTORS.map((d) => [d.schemaName, d.relativePath, d.criticality, d.owner, d.rebuildStrategy].join(' '));
    expect(rows).toEqual([
      'opencode.launchState launch-state.json readiness_blocking launch none',
      'opencode.sessionStore opencode-sessions.json rebuildable_from_provider session poll_opencode_provider',
      'opencode.launchTransaction opencode-launch-transaction.json readiness_blocking launch none',
      'opencode.deliveryJournal opencode-delivery-journal.json rebuildable_from_canonical_destination delivery verify_canonical_destinations',
      'opencode.promptDeliveryLedger opencode-prompt-delivery-ledger.json rebuildable_from_canonical_destination delivery verify_canonical_destinations',
      'opencode.permissionRequests opencode-permissions.json rebuildable_from_provider permission poll_opencode_provider',
      'opencode.hostLeases opencode-host-leases.json rebuildable_from_provider host poll_opencode_provider',
      'opencode.compatibilitySnapshot opencode-compatibility.json readiness_blocking compatibility rerun_capability_discovery',
      'opencode.runtimeRevision opencode-runtime-revision.json readiness_blocking ui rebuild_from_launch_state',
      'opencode.runtimeDiagnostics opencode-diagnostics.json diagnostic_only diagnostics drop_after_quarantine',
    ]);
    for (const descriptor of OPENCODE_RUNTIME_STORE_DESCRIPTORS) expect(descriptor.schemaVersion).toBe(1);
  });

  it('pass the check that own ones must pass', () => {
    expect(defineRuntimeStoreDescriptors(OPENCODE_RUNTIME_STORE_DESCRIPTORS)).toEqual(OPENCODE_RUNTIME_STORE_DESCRIPTORS);
  });
});

describe('defineRuntimeStoreDescriptors', () => {
  it('returns copies, own names beside built-in ones', () => {
    const defined = defineRuntimeStoreDescriptors([...OPENCODE_RUNTIME_STORE_DESCRIPTORS, { ...cart, extra: 1 } as typeof cart]);
    expect(defined).toHaveLength(11);
    expect(defined[10]).toEqual(cart);
    expect(defined[0]).not.toBe(OPENCODE_RUNTIME_STORE_DESCRIPTORS[0]);
  });

  it('names that were added to the interface are known to the compiler', () => {
    const name: RuntimeStoreSchemaName = 'descriptors-test.cart';
    // @ts-expect-error -- a name that nobody added is a typing error, not a new store
    const typo: RuntimeStoreSchemaName = 'descriptors-test.cat';
    expect(defineRuntimeStoreDescriptors([cart])[0].schemaName === name).toBe(true);
    expect(typo).not.toBe(name);
  });

  it.each([
    ['schemaName', [undefined, null, 1, '', ' ']],
    ['schemaVersion', [undefined, null, 0, -1, 1.5, '1', NaN, Infinity, 2 ** 53]],
    ['relativePath', [undefined, null, 1, '', ' ', 'a\0b']],
    ['criticality', [undefined, null, '', 'high', 'toString']],
    ['owner', [undefined, null, '', 'me']],
    ['rebuildStrategy', [undefined, null, '', 'None']],
  ] as [string, unknown[]][])('refuses a bad %s', (key, values) => {
    for (const value of values) {
      const error = caught(() => defineRuntimeStoreDescriptors([OPENCODE_RUNTIME_STORE_DESCRIPTORS[0], { ...cart, [key]: value } as never]));
      expect(error).toBeInstanceOf(HoldfastError);
      expect(error).toMatchObject({ hfCode: 'HF_INVALID_ARGUMENT', argument: `descriptors[1].${key}` });
    }
  });

  it('refuses what is not a list of objects', () => {
    for (const value of [undefined, null, {}, 'x', []]) {
      expect(caught(() => defineRuntimeStoreDescriptors(value as never))).toMatchObject({ argument: 'descriptors' });
    }
    for (const value of [undefined, null, 'x', []]) {
      expect(caught(() => defineRuntimeStoreDescriptors([value as never]))).toMatchObject({ argument: 'descriptors[0]' });
    }
    expect(caught(() => defineRuntimeStoreDescriptors(new Array(1)))).toMatchObject({ argument: 'descriptors[0]' });
  });

  it('refuses two of one name, and two of one file however it is written', () => {
    expect(caught(() => defineRuntimeStoreDescriptors([cart, { ...cart, relativePath: 'other.json' }]))).toMatchObject({
      hfCode: 'HF_INVALID_ARGUMENT',
      argument: 'descriptors[1].schemaName',
      message: 'descriptors[1].schemaName must be another one than that of descriptors[0], got the string "descriptors-test.cart"',
    });
    for (const relativePath of ['shop/cart.json', './shop/cart.json', '/shop/cart.json', 'shop//cart.json', 'shop/x/../cart.json']) {
      expect(caught(() => defineRuntimeStoreDescriptors([cart, { ...cart, schemaName: 'shop.other', relativePath }]))).toMatchObject({
        hfCode: 'HF_INVALID_ARGUMENT',
        argument: 'descriptors[1].relativePath',
      });
    }
  });

  it('says what came instead, without repeating a long value', () => {
    const message = (value: unknown): string => (caught(() => defineRuntimeStoreDescriptors([{ ...cart, owner: value } as never])) as Error).message;
    expect(message(1)).toMatch(/^descriptors\[0\]\.owner must be one of "launch", .*"e2e", got the number 1$/);
    expect(message(null)).toMatch(/got null$/);
    expect(message([])).toMatch(/got an array$/);
    expect(message({})).toMatch(/got an object$/);
    expect(message(true)).toMatch(/got the boolean true$/);
    expect(message(1n)).toMatch(/got a bigint$/);
    expect(message(Symbol('s'))).toMatch(/got a symbol$/);
    expect(message('x'.repeat(1e6)).length).toBeLessThan(300);
  });
});
