export interface Span {
  readonly name: string;
  readonly from: number;
  readonly to: number;
}

export function duration(span: Span): number {
  return span.to - span.from;
}

/** Nothing imports this: a bundler that works leaves it out. */
export function overlaps(a: Span, b: Span): boolean {
  return a.from < b.to && b.from < a.to;
}
