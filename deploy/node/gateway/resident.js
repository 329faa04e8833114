// A device that lives by its gateway's word: checks in, does what it is given, and comes back however often it is cut off.

import { Refused } from '../wire/refused.js';
import { parseAssignment } from './assignment.js';
import { isNotAwaited, sha256 } from './calls.js';
import { doRound } from './round.js';

const FIRST_S = 1;
const LONGEST_S = 300;

const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds));

export class Resident {
  /** `device` is {held, examples, profile}, `log` takes a line, `now` is a clock in seconds. */
  constructor(calls, device, log, now = () => performance.now() / 1000) {
    Object.assign(this, { calls, device, log, now });
    this.isKnown = false;
    this.failures = 0;
    this.model = { sha256: null, chunks: [] };
    /** The answer to the last plan, until it is reported: a cut must not cost the work again. */
    this.finished = null;
    this.reported = 0;
  }

  /** Goes on until so many rounds are reported as done. */
  async stay(rounds = Infinity) {
    while (this.reported < rounds) {
      try {
        await this.turn();
        this.failures = 0;
      } catch (error) {
        if (error.code === undefined) throw error; // no failed call: a defect
        const longest = Math.min(FIRST_S * 2 ** Math.min(this.failures++, 30), LONGEST_S);
        this.log(`the gateway: ${error.message}`);
        await sleep(longest * (0.5 + Math.random() / 2)); // a fleet must not come back all at once
      }
    }
  }

  async turn() {
    const { profile, examples } = this.device;
    const answer = await this.calls.checkIn({
      registration_json: this.isKnown ? '' : JSON.stringify({ profile, examples: examples.length }),
      condition_json: '{}',
    });
    this.isKnown = true;
    if (answer.next === 'plan') return this.answer(answer.plan);
    if (answer.next !== 'wait') {
      throw Object.assign(new Error('its answer is made for a newer device: update this one'), { code: -1 });
    }
    this.isKnown = !answer.wait.introduce;
    return sleep(Math.max(answer.wait.seconds, 0));
  }

  async answer(plan) {
    // A number may come again in another federation: the assignment and the model tell them apart.
    const key = plan.assignment_json + plan.model_sha256.toString('hex');
    if (this.finished?.key !== key) this.finished = { key, ...(await this.done(plan)) };
    const { update, report, refusal } = this.finished;
    try {
      if (refusal) {
        await this.calls.report({ plan_id: plan.plan_id, refusal });
        return;
      }
      await this.calls.upload(plan, update);
      const done = { report_json: JSON.stringify(report), update_sha256: sha256(update) };
      await this.calls.report({ plan_id: plan.plan_id, done });
      this.reported++;
      this.finished = null;
    } catch (error) {
      if (!isNotAwaited(error)) throw error;
      this.log(`plan ${plan.plan_id} is not awaited as it is: ${error.message}`);
      await sleep(FIRST_S);
    }
  }

  async done(plan) {
    try {
      const assignment = parseAssignment(plan.assignment_json);
      if (assignment.plan_id !== BigInt(plan.plan_id)) throw new Refused('message', 'the assignment of another plan');
      const payload = await this.fetched(plan);
      const done = doRound({ assignment, payload, now: this.now, ...this.device });
      const { loss, steps } = done.report;
      this.log(`round ${assignment.round_number}: ${steps} steps, loss ${loss.toFixed(4)}, ${done.update.length} bytes up`);
      return done;
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      this.log(`plan ${plan.plan_id} is refused (${error.reason}): ${error.message}`);
      return { refusal: { reason: error.reason, message: error.message.slice(0, 500), spent_json: '' } };
    }
  }

  /** The model of a plan; what came before a cut is not fetched again. */
  async fetched(plan) {
    const wanted = plan.model_sha256.toString('hex');
    if (this.model.sha256 !== wanted) this.model = { sha256: wanted, chunks: [] };
    const size = () => this.model.chunks.reduce((sum, chunk) => sum + chunk.length, 0);
    if (size() < Number(plan.model_bytes)) await this.calls.download(plan, this.model.chunks);
    const payload = Buffer.concat(this.model.chunks);
    if (sha256(payload).toString('hex') !== wanted) {
      this.model.sha256 = null;
      throw Object.assign(new Error(`${payload.length} bytes came that are not the model`), { code: -1 });
    }
    return payload;
  }
}
