// What each panel of a dashboard shows. For each request on standard input, one JSON object on a line, the databases are
// asked as Grafana's data sources ask them, and Grafana's own library does the rest: transformations, field options,
// values, texts, colours. Answers are JSON lines on standard output.
//
// Written by hand after Grafana's source, because no Apache-2.0 package has it: how variables are put into queries, how
// the two data sources make frames of answers, and how tables are sorted.
'use strict';
const { JSDOM } = require('jsdom');

const dom = new JSDOM('<!doctype html><body></body>', { url: 'http://localhost/' });
const BROWSER = ['document', 'navigator', 'location', 'localStorage', 'HTMLElement', 'Element', 'Node', 'DOMParser',
  'getComputedStyle'];
const define = (name, value) => Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
define('window', dom.window);
for (const name of BROWSER) define(name, dom.window[name]);
window.grafanaBootData = { settings: { featureToggles: {} }, user: {} };
const complaints = [];
// A filter by a column that no answer has leaves nothing, which is what our filters are for.
const EXPECTED = /^\[FilterByValue\] Could not find index for field name/;
for (const kind of ['log', 'info', 'debug', 'warn', 'error'])
  console[kind] = (...words) => EXPECTED.test(words[0]) || complaints.push(words.join(' '));

const G = require('@grafana/data');
const theme = G.createTheme();
const TYPE = G.FieldType;
const PANEL_WIDTH = 1600;

// What Grafana's application registers when it starts.
G.standardTransformersRegistry.setInit(() => {
  const known = new Map(Object.values(G.standardTransformers).map((one) => [one.id, one]));
  return [...known.values()].map((one) => ({ id: one.id, name: one.name, editor: () => null, transformation: one }));
});
const PROCESSORS = {
  thresholds: G.thresholdsOverrideProcessor, mappings: G.valueMappingsOverrideProcessor,
  links: G.dataLinksOverrideProcessor, unit: G.unitOverrideProcessor, displayName: G.displayNameOverrideProcessor,
  decimals: G.numberOverrideProcessor, min: G.numberOverrideProcessor, max: G.numberOverrideProcessor,
};
const STANDARD = ['unit', 'min', 'max', 'decimals', 'displayName', 'color', 'noValue', 'links', 'mappings',
  'thresholds', 'filterable', 'description', 'fieldMinMax', 'displayNameFromDS'];
const GRAPH = ['drawStyle', 'lineInterpolation', 'lineWidth', 'fillOpacity', 'gradientMode', 'fillBelowTo', 'lineStyle',
  'spanNulls', 'insertNulls', 'showPoints', 'pointSize', 'stacking', 'axisPlacement', 'axisLabel', 'axisWidth',
  'axisSoftMin', 'axisSoftMax', 'axisGridShow', 'axisCenteredZero', 'axisColorMode', 'axisBorderShow',
  'scaleDistribution', 'hideFrom', 'thresholdsStyle', 'transform', 'barAlignment'];
const CUSTOM = {
  timeseries: GRAPH,
  table: ['width', 'minWidth', 'align', 'cellOptions', 'inspect', 'filterable', 'hidden'],
  'state-timeline': ['lineWidth', 'fillOpacity', 'spanNulls', 'insertNulls', 'hideFrom'],
};
const item = (custom) => (name) => ({
  id: (custom ? 'custom.' : '') + name, path: name, name, isCustom: custom, override: () => null, editor: () => null,
  process: PROCESSORS[name] || G.identityOverrideProcessor, settings: {},
  shouldApply: (field) => !/^axis/.test(name) || field.type === TYPE.number,
});
const registry = (kind) => new G.FieldConfigOptionsRegistry(
  () => [...STANDARD.map(item(false)), ...(CUSTOM[kind] || []).map(item(true))]);

// ---- variables

const escapeRegex = (text) => text.replace(/[\\^$*+?.()|[\]{}\/]/g, '\\$&');
// The Prometheus data source's own way, for a variable without a format.
const escapePlain = (text) => text.replace(/\\/g, '\\\\').replace(/'/g, "\\\\'");
const escapeSpecial = (text) => text.replace(/\\/g, '\\\\\\\\').replace(/[$^*{}\[\]+?.()|]/g, '\\\\$&');

const encodeStrictly = (text) =>
  encodeURIComponent(text).replace(/[!'()*]/g, (one) => '%' + one.charCodeAt(0).toString(16).toUpperCase());
const alternative = (values) => (values.length === 1 ? values[0] : `(${values.join('|')})`);

function formatted(variable, chosen, format, language) {
  if (format === 'queryparam')
    return (chosen || ['$__all']).map((one) => `var-${variable.name}=${encodeURIComponent(one)}`).join('&');
  if (!chosen) return variable.allValue; // All, by its own value, is put in as it is
  if (format === 'regex') return alternative(chosen.map(escapeRegex));
  if (format === 'raw') return chosen.join(',');
  if (format === 'percentencode') return encodeStrictly(chosen.join(','));
  if (format) throw new Error(`format ${format} is not known here`);
  if (language !== 'promql') return chosen.join(',');
  return variable.multi || variable.includeAll ? alternative(chosen.map(escapeSpecial)) : escapePlain(chosen[0]);
}

function interpolate(text, asked, scoped = {}) {
  if (typeof text !== 'string') return text;
  return text.replace(/\$(\w+)|\$\{(\w+)(?:\.([^:^}]+))?(?::([^}]+))?\}/g, (whole, plain, braced, path, format) => {
    const name = plain || braced;
    if (name === '__value' && scoped.__dataContext) {
      const { field, rowIndex } = scoped.__dataContext, value = String(field.values[rowIndex] ?? '');
      return format === 'percentencode' ? encodeStrictly(value) : encodeURI(value); // as links do without a format
    }
    if (scoped[name] !== undefined)
      return path ? path.split('.').reduce((value, key) => value && value[key], scoped[name]) ?? '' : scoped[name];
    const variable = asked.board.templating.list.find((one) => one.name === name);
    return variable ? formatted(variable, asked.choices[name], format, asked.language) : whole;
  });
}

// ---- frames

async function post(url, body) {
  const answer = await fetch(url, { method: 'POST', body: new URLSearchParams(body) });
  const text = await answer.text();
  if (!answer.ok) throw new Error(text);
  return JSON.parse(text);
}
const field = (name, type, values, config = {}, labels = undefined) =>
  ({ name, type, values, config, ...(labels ? { labels } : {}) });
function typeOf(values) {
  const first = values.find((value) => value !== null && value !== undefined);
  return typeof first === 'string' ? TYPE.string : typeof first === 'boolean' ? TYPE.boolean : TYPE.number;
}
const column = (name, values) => field(name, typeOf(values), values, { displayNameFromDS: name });

async function askInflux(target, query, asked) {
  const answer = (await post(`${asked.url}/query?db=${asked.database}&epoch=ms`, { q: query })).results[0];
  if (answer.error) throw new Error(answer.error);
  const series = answer.series || [];
  if (target.resultFormat === 'table') return series.length ? [influxTable(series, target)] : [];
  return series.flatMap((one) => one.columns.slice(1).map((name, place) => influxSeries(one, place + 1, target)));
}
function influxTable(series, target) {
  const columns = series[0].columns, rows = series.flatMap((one) => one.values);
  const at = (place) => rows.map((row) => row[place]);
  const fields = [columns[0] === 'time' ? field('Time', TYPE.time, at(0)) : column(columns[0], at(0))];
  for (const tag of Object.keys(series[0].tags || {}))
    fields.push(column(tag, series.flatMap((one) => one.values.map(() => one.tags[tag]))));
  for (let place = 1; place < columns.length; place++) fields.push(column(columns[place], at(place)));
  return { name: series[0].name, refId: target.refId, fields, length: rows.length };
}
function influxSeries(one, place, target) {
  const values = one.values.map((row) => row[place]), tags = one.tags || {};
  const name = target.alias.replace(/\$([@\w-]+)/g, (whole, key) =>
    key === 'col' ? one.columns[place] : tags[key.replace('tag_', '')] ?? whole);
  const shown = field('Value', typeOf(values), values, { displayNameFromDS: name }, tags);
  return { name, refId: target.refId, fields: [field('Time', TYPE.time, one.values.map((row) => row[0])), shown],
    length: values.length };
}

const numberOf = (text) => (/inf/i.test(text) ? (text[0] === '-' ? -Infinity : Infinity) : parseFloat(text));
async function askProm(target, query, asked, stepS) {
  const { from, to } = asked.range, aligned = (ms) => Math.floor(ms / 1000 / stepS) * stepS;
  const body = target.range ? { query, start: aligned(from), end: aligned(to), step: stepS } : { query, time: to / 1000 };
  const answer = await post(`${asked.url}/api/v1/query${target.range ? '_range' : ''}`, body);
  const frames = answer.data.result.map((one) => {
    const points = one.values || [one.value];
    const name = (target.legendFormat || '').replace(/\{\{\s*(.+?)\s*\}\}/g, (_, label) => one.metric[label] ?? '');
    const config = { displayNameFromDS: name || query };
    return { name, refId: target.refId, length: points.length, fields: [
      field('Time', TYPE.time, points.map((point) => point[0] * 1000), { interval: stepS * 1000 }),
      field('Value', TYPE.number, points.map((point) => numberOf(point[1])), config, one.metric)] };
  });
  return frames.length ? frames : [{ refId: target.refId, fields: [], length: 0, name: '' }];
}
function promTables(frames) { // a table of each query, as the data source makes one where the format is `table`
  if (!frames.length || (frames.length === 1 && !frames[0].length)) return frames;
  const refs = [...new Set(frames.map((one) => one.refId))];
  return refs.map((ref) => {
    const own = frames.filter((one) => one.refId === ref && one.length);
    const labels = [...new Set(own.flatMap((one) => Object.keys(one.fields[1].labels).sort()))];
    const each = (make) => own.flatMap((one) => one.fields[0].values.map((_, row) => make(one, row)));
    return { refId: ref, length: own.reduce((sum, one) => sum + one.length, 0), fields: [
      field('Time', TYPE.time, each((one, row) => one.fields[0].values[row])),
      ...labels.map((label) => field(label, TYPE.string, each((one) => one.fields[1].labels[label] ?? ''))),
      field(refs.length > 1 ? `Value #${ref}` : 'Value', TYPE.number, each((one, row) => one.fields[1].values[row]))] };
  });
}

// ---- a panel

const settled = (observable) => new Promise((done, failed) => observable.subscribe({ next: done, error: failed }));

// As Grafana does when it loads a panel: the first threshold begins at minus infinity, which JSON has as null.
function repairThresholds(panel) {
  const { defaults, overrides } = panel.fieldConfig;
  const overridden = overrides.flatMap((one) => one.properties).filter((one) => one.id === 'thresholds');
  for (const one of [defaults.thresholds, ...overridden.map((each) => each.value)])
    if (one?.steps?.length) one.steps[0].value = -Infinity;
}

function unknownOptions(panel, known) {
  const { defaults, overrides } = panel.fieldConfig;
  const used = [...overrides.flatMap((one) => one.properties.map((each) => each.id)),
    ...Object.keys(defaults).filter((key) => key !== 'custom'),
    ...Object.keys(defaults.custom || {}).map((key) => `custom.${key}`)];
  return used.filter((id) => !known.getIfExists(id)).map((id) => `unknown option ${id}`);
}

async function frames(panel, asked, scoped, stepS, errors) {
  const found = [];
  for (const target of panel.targets) {
    const text = interpolate(asked.language === 'influxql' ? target.query : target.expr, asked, scoped);
    try {
      found.push(...(await (asked.language === 'influxql' ? askInflux(target, text, asked) : askProm(target, text, asked, stepS))));
    } catch (error) {
      errors.push(`${target.refId}: ${error.message}: ${text}`);
    }
  }
  if (asked.language === 'influxql') return found;
  const isTable = (one) => panel.targets.find((target) => target.refId === one.refId).format === 'table';
  return [...found.filter((one) => !isTable(one)), ...promTables(found.filter(isTable))];
}

async function shown(panel, asked) {
  if (panel.type === 'text') return { title: panel.title, type: 'text', errors: [], text: panel.options.content };
  complaints.length = 0;
  const { from, to } = asked.range;
  const timeRange = { from: G.dateTime(from), to: G.dateTime(to) };
  timeRange.raw = { from: timeRange.from, to: timeRange.to };
  const points = Math.max(100, Math.floor((PANEL_WIDTH * panel.gridPos.w) / 24));
  const interval = G.rangeUtil.calculateInterval(timeRange, points, panel.interval || '60s');
  const scoped = { __interval: interval.interval, __interval_ms: String(interval.intervalMs), __from: String(from),
    __to: String(to), __range: `${Math.round((to - from) / 1000)}s`, __range_s: String(Math.round((to - from) / 1000)),
    timeFilter: `time >= ${from}ms and time <= ${to}ms` };
  const known = registry(panel.type), errors = unknownOptions(panel, known);
  repairThresholds(panel);
  const source = await frames(panel, asked, scoped, interval.intervalMs / 1000, errors);
  const kept = asked.raw ? JSON.parse(JSON.stringify(source)) : undefined;
  for (const change of panel.transformations || [])
    if (!G.standardTransformersRegistry.getIfExists(change.id)) errors.push(`unknown transformation ${change.id}`);
  const changed = await settled(G.transformDataFrame(panel.transformations || [], source,
    { interpolate: (text) => interpolate(text, asked, scoped) }));
  const replaceVariables = (text, own) => interpolate(text, asked, { ...scoped,
    ...Object.fromEntries(Object.entries(own || {}).map(([key, one]) => [key, one?.value ?? one])),
    __url_time_range: `from=${from}&to=${to}` });
  const data = G.applyFieldOverrides({ data: changed, fieldConfig: panel.fieldConfig, fieldConfigRegistry: known,
    replaceVariables, theme, timeZone: 'utc' });
  const found = { title: panel.title, type: panel.type, interval_ms: interval.intervalMs };
  if (kept) Object.assign(found, { source: kept, panel });
  Object.assign(found, SHOW[panel.type](panel, data, replaceVariables));
  return { ...found, errors: [...errors, ...new Set(complaints)] };
}

const cell = (one, value) => {
  const display = one.display(value);
  return { text: G.formattedValueToString(display), color: display.color ?? null, value: value ?? null };
};
const absent = (panel, data) => data.every((frame) => !frame.length) ? panel.fieldConfig.defaults.noValue ?? 'No data' : null;

function values(panel, data, replaceVariables) {
  const found = G.getFieldDisplayValues({ fieldConfig: panel.fieldConfig, reduceOptions: panel.options.reduceOptions,
    replaceVariables, theme, data, sparkline: false, timeZone: 'utc' });
  return { empty: absent(panel, data), values: found.map((one) => ({ title: one.display.title ?? '',
    text: G.formattedValueToString(one.display), color: one.display.color ?? null,
    value: Number.isFinite(one.display.numeric) ? one.display.numeric : null })) };
}

function table(panel, data) {
  const frame = data[0], empty = absent(panel, data);
  if (!frame || !frame.fields.length) return { empty, frames: data.length, columns: [], rows: [], links: {} };
  const label = (one) => G.getFieldDisplayName(one, frame, data);
  const sorts = panel.options.sortBy.map((one) => [frame.fields.find((each) => label(each) === one.displayName), one]);
  const compare = (a, b) => {
    const lacking = (a ?? null) === null ? ((b ?? null) === null ? 0 : -1) : (b ?? null) === null ? 1 : null;
    return lacking ?? (a < b ? -1 : a > b ? 1 : 0);
  };
  const order = [...Array(frame.length).keys()].sort((a, b) => {
    for (const [by, { desc }] of sorts) {
      const found = by ? compare(by.values[a], by.values[b]) : 0;
      if (found) return desc ? -found : found;
    }
    return 0;
  });
  return {
    empty, frames: data.length, columns: frame.fields.map(label),
    unsortable: frame.length ? sorts.filter(([by]) => !by).map(([, one]) => one.displayName) : [],
    widths: frame.fields.map((one) => one.config.custom?.width ?? null),
    rows: order.map((row) => frame.fields.map((one) => cell(one, one.values[row]))),
    links: Object.fromEntries(frame.fields.filter((one) => one.getLinks && one.config.links?.length).map((one) =>
      [label(one), order.map((row) => one.getLinks({ valueRowIndex: row }).map((link) => link.href))])),
  };
}

// Where a line is drawn without a break, as [begin, end] in ms: nulls break it, but for gaps as short as `spanNulls`.
function segments(times, values, spanNulls) {
  const found = [];
  let broken = true;
  values.forEach((value, place) => {
    if (value === undefined) return;
    if (value === null) { broken = true; return; }
    const last = found[found.length - 1];
    const bridged = typeof spanNulls === 'number' && last && times[place] - last[1] <= spanNulls;
    if (broken && !bridged) found.push([times[place], times[place]]);
    else last[1] = times[place];
    broken = false;
  });
  return found;
}

function series(panel, data) {
  return { empty: absent(panel, data), series: data.flatMap((whole) => {
    const frame = panel.type === 'timeseries' && whole.length ? G.applyNullInsertThreshold({ frame: whole }) : whole;
    const time = frame.fields.find((one) => one.type === TYPE.time);
    return frame.fields.filter((one) => one !== time).map((one) => ({
      name: G.getFieldDisplayName(one, frame, data), times: time.values, values: one.values,
      fixed: one.config.color?.mode === 'fixed' ? theme.visualization.getColorByName(one.config.color.fixedColor) : null,
      segments: segments(time.values, one.values, one.config.custom?.spanNulls),
      cells: panel.type === 'state-timeline' ? one.values.map((value) => cell(one, value)) : [] }));
  }) };
}

const SHOW = { stat: values, bargauge: values, table, timeseries: series, 'state-timeline': series };

async function answer(asked) {
  const all = asked.board.panels.flatMap((one) => (one.type === 'row' ? one.panels || [] : [one]));
  const wanted = all.filter((one) => !asked.panels || asked.panels.includes(one.title));
  const found = [];
  for (const panel of wanted) found.push(await shown(panel, asked));
  return found;
}

async function main() {
  const lines = require('readline').createInterface({ input: process.stdin });
  for await (const line of lines) {
    let reply;
    try {
      reply = { panels: await answer(JSON.parse(line)) };
    } catch (error) {
      reply = { failure: error.stack };
    }
    process.stdout.write(`${JSON.stringify(reply)}\n`);
  }
}
main();
