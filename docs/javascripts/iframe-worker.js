// A browser gives pages that are opened from disk no worker, and the search runs in one: there a hidden frame takes its place.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      const inside = frame.contentWindow;
      window.addEventListener("message", event => {
        if (event.source !== inside) return;
        const message = new MessageEvent("message", { data: event.data });
        this.dispatchEvent(message);
        if (this.onmessage) this.onmessage(message);
      });
      this.loaded = new Promise(resolve => { inside.ready = resolve; });
      inside.document.open();
      inside.document.write(`<script>
        var postMessage = data => parent.postMessage(data, "*");
        var importScripts = (...urls) => urls.reduce((before, url) => before.then(() => new Promise((done, failed) => {
          const script = document.createElement("script");
          Object.assign(script, { src: url, onload: done, onerror: failed });
          document.body.append(script);
        })), Promise.resolve());
      <\/script><body><script src="${url}" onload="ready()"><\/script>`);
      inside.document.close();
      this.frame = frame;
    }
    postMessage(data) { this.loaded.then(() => this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data, source: window }))); }
    terminate() { this.frame.remove(); }
  };
}
