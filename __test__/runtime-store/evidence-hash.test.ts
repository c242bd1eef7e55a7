import { createHash } from 'node:crypto';

import { createOpenCodeLaunchEvidenceHash, HoldfastError, redactOpenCodeLaunchEvidence } from 'holdfast';
import { describe, expect, it } from 'vitest';

const hashOf = (text: string) => `sha256:${createHash('sha256').update(text).digest('hex')}`;

describe('the evidence hash', () => {
  it.each([
    [{ ok: true }, 'sha256:4062edaf750fb8074e7e83e0c9028c94e32468a8b6f1614774328ef045150f93'],
    [null, 'sha256:74234e98afe7498fb5daf1f36ac2d78acc339464f950703b8c019892f982b90b'],
    [
      { b: 1, a: [NaN, -0, 1.5, undefined], u: undefined, d: new Date(0) },
      'sha256:96e1f167c94e4e611443ca28b0857449875ac938b95246d357ba200b23d96709',
    ],
  ])('of %j is the one of the format', (evidence, hash) => {
    expect(createOpenCodeLaunchEvidenceHash(evidence)).toBe(hash);
  });

  it.each<[unknown, string]>([
    [{ b: 1, 10: 'x', a: 2, 9: 'y', 4294967295: 'no index', 4294967294: 'index' },
      '{"9":"y","10":"x","4294967294":"index","4294967295":"no index","a":2,"b":1}'],
    // By code unit, not by code point or locale: U+1F600 starts with 0xD83D, which is less than 0xFF5E.
    [{ '\uff5e': 1, '\u{1f600}': 2, é: 3, Z: 4, a: 5 }, '{"Z":4,"a":5,"é":3,"\u{1f600}":2,"\uff5e":1}'],
    [[Infinity, -Infinity, NaN, 1e21, 1e-7, -0], '["Infinity","-Infinity","NaN",1e+21,1e-7,0]'],
    [{ deep: { b: NaN, a: [{ d: 1, c: 2 }] } }, '{"deep":{"a":[{"c":2,"d":1}],"b":"NaN"}}'],
    [[, undefined, () => 1, null], '[null,null,null,null]'],
    [{ f: () => 1, s: Symbol('s'), u: undefined, n: null }, '{"n":null}'],
    [{ m: new Map([[1, 2]]), s: new Set([1]), d: new Date(0), r: /x/ }, '{"d":{},"m":{},"r":{},"s":{}}'],
    ['\ud800', '"\\ud800"'],
    [NaN, '"NaN"'],
    ['', '""'],
    [false, 'false'],
  ])('of %o is that of its sorted compact JSON', (evidence, text) => {
    expect(createOpenCodeLaunchEvidenceHash(evidence)).toBe(hashOf(text));
  });

  it('does not see secrets or the order of keys', () => {
    expect(createOpenCodeLaunchEvidenceHash({ token: 'a' })).toBe(createOpenCodeLaunchEvidenceHash({ token: 'b' }));
    expect(createOpenCodeLaunchEvidenceHash({ a: 1, b: 2 })).toBe(createOpenCodeLaunchEvidenceHash({ b: 2, a: 1 }));
    expect(createOpenCodeLaunchEvidenceHash({ a: 1 })).not.toBe(createOpenCodeLaunchEvidenceHash({ a: 2 }));
    expect(createOpenCodeLaunchEvidenceHash({ a: ['x', 'y'] })).not.toBe(createOpenCodeLaunchEvidenceHash({ a: ['y', 'x'] }));
  });

  it('sees what stands under an own __proto__ key', () => {
    const evidence = (value: number): unknown => JSON.parse(`{"__proto__":{"v":${value}}}`);
    expect(createOpenCodeLaunchEvidenceHash(evidence(1))).toBe(hashOf('{"__proto__":{"v":1}}'));
    expect(createOpenCodeLaunchEvidenceHash(evidence(1))).not.toBe(createOpenCodeLaunchEvidenceHash(evidence(2)));
  });

  it.each([[undefined], [() => 1], [Symbol('x')]])('of %o is refused, with a stable code', (evidence) => {
    const call = () => createOpenCodeLaunchEvidenceHash(evidence);
    expect(call).toThrow(HoldfastError);
    expect(call).toThrow(expect.objectContaining({ hfCode: 'HF_INVALID_ARGUMENT', message: expect.stringContaining('evidence') }));
  });

  it('of circular evidence, or of a bigint, is a TypeError', () => {
    const loop: Record<string, unknown> = {};
    loop.inner = [{ loop }];
    expect(() => createOpenCodeLaunchEvidenceHash(loop)).toThrow(TypeError);
    expect(() => createOpenCodeLaunchEvidenceHash({ n: 1n })).toThrow(TypeError);
  });

  it('takes an object that stands in two places', () => {
    const shared = { a: 1 };
    expect(createOpenCodeLaunchEvidenceHash([shared, shared])).toBe(hashOf('[{"a":1},{"a":1}]'));
  });
});

describe('redaction', () => {
  it.each([
    'token', 'accessToken', 'SECRET', 'client_secret', 'password', 'dbPassword', 'apiKey', 'api_key', 'api-key', 'APIKEY',
    'Authorization', 'cookie', 'Set-Cookie', 'credentials', 'passwd',
  ])('hides the value of %s, whatever it is', (key) => {
    for (const value of ['x', 1, null, undefined, { nested: 'x' }, ['x']]) {
      expect(redactOpenCodeLaunchEvidence({ [key]: value })).toEqual({ [key]: '[redacted]' });
    }
  });

  it('goes through arrays and objects, keeps the order of keys, and does not scan values', () => {
    const evidence = { z: [{ password: 'p', note: 'my token is 1' }], a: { apiKey: 'k', deep: { cookie: 'c', ok: true } } };
    const redacted = redactOpenCodeLaunchEvidence(evidence);
    expect(JSON.stringify(redacted)).toBe(
      '{"z":[{"password":"[redacted]","note":"my token is 1"}],"a":{"apiKey":"[redacted]","deep":{"cookie":"[redacted]","ok":true}}}',
    );
  });

  it('does not read what it hides', () => {
    const evidence = {
      get token(): string {
        throw new Error('the secret was read');
      },
    };
    expect(redactOpenCodeLaunchEvidence(evidence)).toEqual({ token: '[redacted]' });
  });

  it('returns a copy and leaves the evidence alone', () => {
    const evidence = { list: [{ a: 1, token: 't' }] };
    const redacted = redactOpenCodeLaunchEvidence(evidence) as typeof evidence;
    redacted.list[0]!.a = 2;
    expect(evidence).toEqual({ list: [{ a: 1, token: 't' }] });
  });

  it('returns plain values as they are, NaN included', () => {
    for (const value of [undefined, null, 1, NaN, 'token', true]) expect(redactOpenCodeLaunchEvidence(value)).toBe(value);
  });

  it('keeps an own __proto__ key as a key, and redacts inside it', () => {
    const evidence: unknown = JSON.parse('{"__proto__":{"isAdmin":true,"token":"t"},"b":1}');
    const redacted = redactOpenCodeLaunchEvidence(evidence) as Record<string, unknown>;
    expect(JSON.stringify(redacted)).toBe('{"__proto__":{"isAdmin":true,"token":"[redacted]"},"b":1}');
    expect(Object.getPrototypeOf(redacted)).toBe(Object.prototype);
    expect(redacted.isAdmin).toBeUndefined();
  });

  it('of circular evidence is a TypeError', () => {
    const loop: unknown[] = [];
    loop.push(loop);
    expect(() => redactOpenCodeLaunchEvidence(loop)).toThrow(TypeError);
  });
});
