// Rolls the types of src-js/ up into index.d.ts, the one readable declaration of the whole package.
//
//   node scripts/dts.cjs           writes it
//   node scripts/dts.cjs --check   fails when the committed file is not what the sources say
'use strict';

const fs = require('node:fs');
const path = require('node:path');
const { generateDtsBundle } = require('dts-bundle-generator');

const root = path.resolve(__dirname, '..');
const target = path.join(root, 'index.d.ts');

const [bundle] = generateDtsBundle(
  [{ filePath: path.join(root, 'src-js/index.ts'), output: { exportReferencedTypes: false, noBanner: true } }],
  { preferredConfigPath: path.join(root, 'tsconfig.json') },
);
// The bundler indents with tabs and leaves no room between declarations.
const body = bundle
  .replace(/^\t+/gm, (tabs) => '  '.repeat(tabs.length))
  .replace(/(?<=[;}]\n)(?=\/\*\*|export )/g, '\n')
  .replace(/\n+export \{\};\n$/, '\n');
const text = `// Types of holdfast. Generated from src-js/ by \`npm run dts\`: edit the sources, not this file.\n\n${body}`;

if (!process.argv.includes('--check')) {
  fs.writeFileSync(target, text);
  console.log('index.d.ts: written');
} else if (!fs.existsSync(target) || fs.readFileSync(target, 'utf8') !== text) {
  console.error('index.d.ts does not match src-js/. Run `npm run dts` and commit the result.');
  process.exit(1);
} else {
  console.log('index.d.ts: matches src-js/');
}
