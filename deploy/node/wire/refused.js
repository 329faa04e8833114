// A payload or a message that is not acceptable. `reason` is one word of docs/wire-format.md, section Refusing.

export class Refused extends Error {
  constructor(reason, message) {
    super(message);
    this.reason = reason;
  }
}
