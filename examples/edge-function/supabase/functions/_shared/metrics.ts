// Counters of this process, in the text format of Prometheus.

const HELP: Record<string, string> = {
  replay_requests_total: "Requests for a replay, by outcome.",
  http_requests_total: "Answers, by function and status.",
  http_errors_total: "Errors, by code.",
};
const counts = new Map<string, number>();

export function count(name: keyof typeof HELP, labels: Record<string, string>): void {
  const series = `${name}{${Object.entries(labels).map(([k, v]) => `${k}="${v}"`).join(",")}}`;
  counts.set(series, (counts.get(series) ?? 0) + 1);
}

export function lines(): string[] {
  return Object.entries(HELP).flatMap(([name, help]) => [
    `# HELP ${name} ${help}`,
    `# TYPE ${name} counter`,
    ...[...counts].filter(([series]) => series.startsWith(`${name}{`)).map(([series, n]) => `${series} ${n}`),
  ]);
}
