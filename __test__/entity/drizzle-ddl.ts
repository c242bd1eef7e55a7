/** Creates tables from their drizzle definitions, as drizzle-kit would, without drizzle-kit. */
import { is, SQL, type Table } from 'drizzle-orm';
import { getTableConfig, PgDialect, type PgTable } from 'drizzle-orm/pg-core';

import { query, type FreshSchema } from '../support/postgres';

const dialect = new PgDialect();
const textOf = (sql: SQL): string => dialect.sqlToQuery(sql.inlineParams()).sql;

/** The statements that create a table with its indexes. */
export function createStatements(table: Table): string[] {
  const { name, columns, indexes, uniqueConstraints } = getTableConfig(table as PgTable);
  const lines = columns.map((column) => {
    const parts = [`"${column.name}"`, column.getSQLType()];
    const fallback: unknown = column.default;
    if (fallback !== undefined) parts.push(`DEFAULT ${is(fallback, SQL) ? textOf(fallback) : String(fallback)}`);
    if (column.generatedIdentity) parts.push(`GENERATED ${column.generatedIdentity.type === 'always' ? 'ALWAYS' : 'BY DEFAULT'} AS IDENTITY`);
    if (column.primary) parts.push('PRIMARY KEY');
    if (column.notNull) parts.push('NOT NULL');
    return parts.join(' ');
  });
  for (const unique of uniqueConstraints) lines.push(`CONSTRAINT "${unique.getName()}" UNIQUE (${unique.columns.map((column) => `"${column.name}"`).join(', ')})`);
  const made = indexes.map(({ config }) => {
    const on = config.columns.map((column) => (is(column, SQL) ? textOf(column) : `"${(column as { name?: string }).name}"`));
    const where = config.where === undefined ? '' : ` WHERE ${textOf(config.where)}`;
    return `CREATE ${config.unique ? 'UNIQUE ' : ''}INDEX "${config.name}" ON "${name}" USING ${config.method ?? 'btree'} (${on.join(', ')})${where}`;
  });
  return [`CREATE TABLE "${name}" (${lines.join(', ')})`, ...made];
}

/** Creates the tables in a schema. */
export async function createTables(place: FreshSchema, tables: readonly Table[]): Promise<void> {
  await query(tables.flatMap(createStatements).join(';\n'), undefined, place.url);
}
