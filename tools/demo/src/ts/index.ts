import { duration, type Span } from "./span";

const spans: Span[] = [
  { name: "revive", from: 0, to: 87 },
  { name: "command", from: 87, to: 1087 },
];

for (const span of spans) {
  console.log(`${span.name}: ${duration(span)} ms`);
}
