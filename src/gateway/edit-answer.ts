/** Answers that a dialect edits on their way to the caller: piece by piece, or whole. */
import type { Answer, CloudAnswer, EditAnswer, EditedAnswer } from "./dialect.ts";
import type { AnswerSink } from "./upstream.ts";

export function editWhole(answer: CloudAnswer, edit: EditAnswer | undefined): Answer {
  const edited = edit?.(answer.headers);
  if (edited === undefined) return answer;
  const body = Buffer.concat([edited.push(answer.body), edited.end()]);
  return { status: answer.status, headers: edited.headers, body };
}

export function editingSink(sink: AnswerSink, edit: EditAnswer | undefined): AnswerSink {
  if (edit === undefined) return sink;
  let edited: EditedAnswer | undefined;
  return {
    ...sink,
    start(status, headers) {
      edited = edit(headers);
      sink.start(status, edited?.headers ?? headers);
    },
    write(chunk) {
      const ready = edited === undefined ? chunk : edited.push(chunk);
      return ready.length === 0 || sink.write(ready);
    },
    end() {
      const rest = edited?.end();
      if (rest !== undefined && rest.length > 0) sink.write(rest);
      sink.end();
    },
  };
}
