// A visit: what one visitor runs on the server, and the events that are polled of it.

const { server } = kit.gradio;
const { say, complain } = kit.words;

const PATIENCE = 20_000; // milliseconds after which a poll counts as lost
const QUICK = 300; // milliseconds between polls while something happens
const SLOW = 2000; // and while it only waits for questions

const newName = () =>
  [...crypto.getRandomValues(new Uint32Array(4))].map((n) => n.toString(16)).join("");

// A visit under a name of its own. Its owner says if something is `there` to poll, and if it is
// `busy`; `take(events of each job, began)` gets what is new, where `began` says that its turn in
// the queue has just come; `lost(problem)` says that the server knows it no more, `back()` that a
// lost connection is there again.
class Visit {
  constructor(owner) {
    Object.assign(this, { owner, name: newName(), round: 0, polling: false, wake() {} });
    this.place = 0; // in the queue; 0: its turn has come
    this.seen = []; // events of each job
    for (const event of ["online", "visibilitychange"]) {
      window.addEventListener(event, () => this.wake());
    }
    window.addEventListener("pagehide", () => this.leaveForGood());
  }

  // A new round of `count` jobs, none of whose events is seen.
  begin(count) {
    Object.assign(this, { round: this.round + 1, place: 0, seen: Array(count).fill(0) });
  }

  // Polls from now on, at once.
  keepPolling() {
    if (this.polling) this.wake();
    else this.poll();
  }

  async poll() {
    this.polling = true;
    const { round, owner } = this;
    const gone = () => this.round !== round || !owner.there(); // stopped or begun anew meanwhile
    let misses = 0; // in a row
    while (!gone()) {
      const answer = await this.answer();
      if (gone()) break;
      if (!answer) {
        const seconds = Math.min(30, 2 ** misses);
        misses += 1;
        complain(`The connection is lost: trying again in ${seconds} s. The runs go on meanwhile.`);
        await this.pause(1000 * seconds);
        continue;
      }
      if (misses) {
        complain("");
        say("Connected again");
        owner.back();
      }
      misses = 0;
      if (answer.problem) {
        owner.lost(answer.problem);
        break;
      }
      this.take(answer);
      await this.pause(owner.busy() ? QUICK : SLOW);
    }
    this.polling = false;
    if (this.round !== round && owner.there()) this.poll();
  }

  // What the server says now; nothing where it is late.
  answer() {
    const late = new Promise((done) => setTimeout(done, PATIENCE));
    return Promise.race([server.poll({ visitor: this.name, since: this.seen }), late]);
  }

  take({ place, events }) {
    const began = this.place > 0 && place === 0;
    this.place = place;
    events.forEach((each, number) => {
      this.seen[number] += each.length;
    });
    this.owner.take(events, began);
  }

  // Waits; `wake` ends it early.
  pause(milliseconds) {
    return new Promise((done) => {
      this.wake = done;
      setTimeout(done, milliseconds);
    });
  }

  // As server.leave, by a request that the browser sends on when the page is gone.
  leaveForGood() {
    if (!this.owner.there()) return;
    const { root, api_prefix: prefix, components } = window.gradio_config;
    const asks = { component_id: components[0].id, fn_name: "leave", session_hash: this.name };
    fetch(`${root}${prefix}/component_server/`, {
      method: "POST",
      keepalive: true,
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ ...asks, data: { visitor: this.name } }),
    });
  }
}

kit.visit = { Visit };
