// Draw one panel with Grafana's own components, from the frames that its library made of a database's reply.
import React from 'react';
import { createRoot } from 'react-dom/client';
import * as G from '@grafana/data';
import { PanelChrome, TimeSeries } from '@grafana/ui';

const { panel, source, range, width, height } = window.drawn;
const { defaults, overrides } = panel.fieldConfig;
const timeRange = { from: G.dateTime(range.from), to: G.dateTime(range.to) };
timeRange.raw = { from: timeRange.from, to: timeRange.to };

const PROCESSORS = { thresholds: G.thresholdsOverrideProcessor, unit: G.unitOverrideProcessor,
  displayName: G.displayNameOverrideProcessor };
const option = (id) => {
  const isCustom = id.startsWith('custom.'), name = id.replace('custom.', '');
  return { id, name, path: name, isCustom, process: PROCESSORS[name] || G.identityOverrideProcessor, settings: {},
    override: () => null, editor: () => null, shouldApply: (field) => !isCustom || field.type === G.FieldType.number };
};
const ids = new Set([...Object.keys(defaults), ...Object.keys(defaults.custom).map((name) => `custom.${name}`),
  ...overrides.flatMap((one) => one.properties.map((each) => each.id))]);
ids.delete('custom');

const data = G.applyFieldOverrides({
  data: source.map((one) => G.toDataFrame(one)), fieldConfig: panel.fieldConfig, timeZone: 'utc',
  fieldConfigRegistry: new G.FieldConfigOptionsRegistry(() => [...ids].map(option)),
  replaceVariables: (text) => text, theme: G.createTheme(),
});
createRoot(document.getElementById('panel')).render(
  <PanelChrome title={panel.title} width={width} height={height}>
    {(innerWidth, innerHeight) =>
      <TimeSeries frames={data} structureRev={1} timeRange={timeRange} timeZone="utc" width={innerWidth}
        height={innerHeight} legend={panel.options.legend} />}
  </PanelChrome>);
