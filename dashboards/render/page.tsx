// Draws the panels of a dashboard with Grafana's own components: what it asks of Prometheus, units, mappings, thresholds,
// transformations and looks are those of Grafana. Not Grafana itself: no variables (they are filled in before), no marks.
import React from 'react';
import { createRoot } from 'react-dom/client';
import { firstValueFrom } from 'rxjs';
import {
  applyFieldOverrides,
  cacheFieldDisplayNames,
  createTheme,
  dateTime,
  FieldConfigOptionsRegistry,
  FieldType,
  getFieldDisplayValues,
  identityOverrideProcessor,
  standardTransformers,
  standardTransformersRegistry,
  ThemeContext,
  toDataFrame,
  transformDataFrame,
} from '@grafana/data';
import { BarGauge, BigValue, GlobalStyles, PanelChrome, PortalContainer, TimeSeries, VizRepeater } from '@grafana/ui';
import { TableNG } from '@grafana/ui/unstable';
import { initPluginTranslations } from '@grafana/i18n';

const { page, prometheus, from, to, width, light } = (window as any).DRAW;
const theme = createTheme({ colors: { mode: light ? 'light' : 'dark' } });
const CELL = 30, GAP = 8;
const timeRange = { from: dateTime(from * 1000), to: dateTime(to * 1000), raw: { from: dateTime(from * 1000), to: dateTime(to * 1000) } };
const replaceVariables = (text: string) => text;

standardTransformersRegistry.setInit(() => {
  const byId = new Map(Object.values(standardTransformers).map((one: any) => [one.id, { id: one.id, name: one.name, transformation: async () => one }]));
  return [...byId.values()] as any;
});

// A file has null where a threshold has no lower end; so does Grafana when it opens one.
page.panels.forEach((panel: any) => panel.fieldConfig?.defaults.thresholds?.steps.forEach((step: any) => (step.value ??= -Infinity)));

async function ask(target: any, interval: string) {
  const seconds = { s: 1, m: 60 }[interval.slice(-1)]! * Number(interval.slice(0, -1));
  const step = Math.max(30, seconds, Math.ceil((to - from) / 800));
  const when = target.instant ? `query?time=${to}` : `query_range?start=${from}&end=${to}&step=${step}`;
  const answer = await fetch(`${prometheus}/api/v1/${when}&query=${encodeURIComponent(target.expr)}`);
  const told = await answer.json();
  if (told.status !== 'success') {
    throw new Error(`${target.expr}: ${told.error}`);
  }
  return { rows: told.data.result, step };
}

function named(legend: string | undefined, labels: Record<string, string>) {
  return legend ? legend.replace(/\{\{(\w+)\}\}/g, (_, label) => labels[label] ?? '') : undefined;
}

function asTable(target: any, rows: any[], several: boolean) {
  const labels = [...new Set(rows.flatMap((row) => Object.keys(row.metric)))].sort();
  return toDataFrame({
    refId: target.refId,
    fields: [
      { name: 'Time', type: FieldType.time, values: rows.map((row) => row.value[0] * 1000) },
      ...labels.map((label) => ({ name: label, type: FieldType.string, values: rows.map((row) => row.metric[label] ?? '') })),
      { name: several ? `Value #${target.refId}` : 'Value', type: FieldType.number, values: rows.map((row) => Number(row.value[1])) },
    ],
  });
}

function asSeries(target: any, row: any, step: number) {
  const found = target.instant ? [row.value] : row.values;
  const times: number[] = [], values: (number | null)[] = [];
  found.forEach(([at, value]: [number, string], place: number) => {
    // Grafana fills the steps at which there is nothing.
    if (place > 0 && at - found[place - 1][0] > step * 1.5) {
      times.push((found[place - 1][0] + step) * 1000);
      values.push(null);
    }
    times.push(at * 1000);
    values.push(Number(value));
  });
  return toDataFrame({
    refId: target.refId,
    fields: [
      { name: 'Time', type: FieldType.time, values: times },
      { name: 'Value', type: FieldType.number, labels: row.metric, values, config: { displayNameFromDS: named(target.legendFormat, row.metric) } },
    ],
  });
}

// Outside Grafana nothing knows which options a field has: those that the panel uses.
function options(config: any) {
  const known = new Set<string>(['displayName']);
  for (const [key, value] of Object.entries(config.defaults)) {
    if (key === 'custom') {
      Object.keys(value as object).forEach((name) => known.add(`custom.${name}`));
    } else {
      known.add(key);
    }
  }
  config.overrides.forEach((override: any) => override.properties.forEach((property: any) => known.add(property.id)));
  const registry = new FieldConfigOptionsRegistry();
  for (const id of known) {
    const custom = id.startsWith('custom.');
    registry.register({
      id, path: custom ? id.slice('custom.'.length) : id, isCustom: custom, name: id, description: '', settings: {},
      // The time has an axis of its own, which takes nothing from the panel's.
      process: identityOverrideProcessor, shouldApply: (field: any) => !(custom && field.type === FieldType.time), editor: () => null, override: () => null,
    } as any);
  }
  return registry;
}

async function load(panel: any) {
  const several = panel.targets.length > 1;
  const asked = await Promise.all(panel.targets.map(async (target: any) => ({ target, ...(await ask(target, panel.interval ?? '30s')) })));
  let frames = asked.flatMap(({ target, rows, step }) =>
    target.format === 'table' ? (rows.length ? [asTable(target, rows, several)] : []) : rows.map((row: any) => asSeries(target, row, step))
  );
  if (panel.transformations && frames.length) {
    frames = await firstValueFrom(transformDataFrame(panel.transformations, frames, { interpolate: replaceVariables }));
  }
  const data = applyFieldOverrides({
    data: frames, fieldConfig: panel.fieldConfig, fieldConfigRegistry: options(panel.fieldConfig), replaceVariables, theme, timeZone: 'utc',
  });
  cacheFieldDisplayNames(data);
  return data;
}

function Content({ panel, data, width, height }: any) {
  if (!data.some((frame: any) => frame.length)) {
    return <div className="empty" style={{ display: 'flex', height, alignItems: 'center', justifyContent: 'center', fontSize: 18 }}>{panel.fieldConfig.defaults.noValue ?? 'No data'}</div>;
  }
  if (panel.type === 'timeseries') {
    return (
      <TimeSeries
        frames={data} structureRev={1} timeRange={timeRange} timeZone="utc" width={width} height={height} legend={panel.options.legend}
        options={panel.options} replaceVariables={replaceVariables} dataLinkPostProcessor={(link: any) => link}
        tweakScale={(given: any) => given} tweakAxis={(given: any) => given} {...({} as any)}
      />
    );
  }
  if (panel.type === 'table') {
    return <TableNG data={data[0]} width={width} height={height} noHeader={!panel.options.showHeader} cellHeight={panel.options.cellHeight} initialSortBy={panel.options.sortBy} {...({} as any)} />;
  }
  const values = getFieldDisplayValues({
    fieldConfig: panel.fieldConfig, reduceOptions: panel.options.reduceOptions, replaceVariables, theme, data, timeZone: 'utc',
  });
  return (
    <VizRepeater
      source={values} getValues={() => values} width={width} height={height} renderCounter={0} orientation={panel.options.orientation}
      itemSpacing={panel.type === 'bargauge' ? 8 : 3} minVizHeight={panel.type === 'bargauge' ? 16 : 0}
      renderValue={({ value, width, height, count }: any) =>
        panel.type === 'bargauge' ? (
          <BarGauge
            value={value.display} field={value.field} display={value.view?.getFieldDisplayProcessor(value.colIndex)} theme={theme} width={width}
            height={height} orientation={panel.options.orientation} displayMode={panel.options.displayMode} showUnfilled={panel.options.showUnfilled}
            text={panel.options.text} itemSpacing={8} namePlacement={panel.options.namePlacement} alignmentFactors={longest(values)}
          />
        ) : (
          <BigValue
            theme={theme} value={value.display} width={width} height={height} count={count} colorMode={panel.options.colorMode}
            graphMode={panel.options.graphMode} justifyMode={panel.options.justifyMode} textMode={panel.options.textMode}
            wideLayout={panel.options.wideLayout}
          />
        )
      }
    />
  );
}

function longest(values: any[]) {
  const most = (texts: string[]) => texts.reduce((a, b) => (b.length > a.length ? b : a), '');
  return { title: most(values.map((v) => v.display.title ?? '')), text: most(values.map((v) => v.display.text)), prefix: '', suffix: values[0]?.display.suffix ?? '' };
}

function placed(at: any): any {
  const unit = width / 24;
  return { position: 'absolute', left: at.x * unit + GAP / 2, top: at.y * (CELL + GAP), width: at.w * unit - GAP, height: at.h * (CELL + GAP) - GAP };
}

function Row({ panel }: any) {
  return <div style={{ ...placed(panel.gridPos), fontSize: 16, fontWeight: 500, paddingTop: 6 }}>{panel.title}</div>;
}

function Panel({ panel }: any) {
  const [data, take] = React.useState<any>(null);
  React.useEffect(() => {
    load(panel).then(take).catch((error) => console.error(`PANEL ${panel.title}: ${error.stack ?? error}`));
  }, []);
  const place = placed(panel.gridPos);
  return (
    <div style={place} className="panel" data-title={panel.title} data-done={data !== null}>
      <PanelChrome title={panel.title} description={panel.description} width={place.width} height={place.height}>
        {(w: number, h: number) => (data === null ? <span /> : <Content panel={panel} data={data} width={w} height={h} />)}
      </PanelChrome>
    </div>
  );
}

function App() {
  const height = Math.max(...page.panels.map((panel: any) => panel.gridPos.y + panel.gridPos.h)) * (CELL + GAP);
  return (
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      <div id="board" style={{ position: 'relative', width, height, background: theme.colors.background.canvas, color: theme.colors.text.primary }}>
        {page.panels.map((panel: any) => (panel.type === 'row' ? <Row key={panel.id} panel={panel} /> : <Panel key={panel.id} panel={panel} />))}
      </div>
      <PortalContainer />
    </ThemeContext.Provider>
  );
}

initPluginTranslations('poisonwatch').finally(() => createRoot(document.getElementById('root')!).render(<App />));
