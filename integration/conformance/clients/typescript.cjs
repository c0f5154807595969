// A client made with a TypeScript SDK from npm: `sdk` in the settings is "@modelcontextprotocol/sdk" (the 1.x line) or
// "@modelcontextprotocol/client" (2.x). Settings, journeys and output are those of journey.py; argv[2] is the directory
// whose node_modules has the SDKs.
"use strict";
const { createRequire } = require("node:module");
const load = createRequire(`${process.argv[2]}/package.json`);

function classes(sdk) {
  if (sdk === "@modelcontextprotocol/client") return load(sdk);
  return {
    ...load(`${sdk}/client/index.js`),
    ...load(`${sdk}/client/streamableHttp.js`),
    ...load(`${sdk}/client/sse.js`),
  };
}

async function connect(settings) {
  const { Client, StreamableHTTPClientTransport, SSEClientTransport } = classes(settings.sdk);
  const modern = settings.revision === "2026-07-28";
  const options = modern ? { versionNegotiation: { mode: { pin: settings.revision } } } : {};
  const client = new Client({ name: "typescript", version: "1" }, options);
  const Transport = settings.transport === "sse" ? SSEClientTransport : StreamableHTTPClientTransport;
  const transport = new Transport(new URL(settings.url), { requestInit: { headers: settings.headers } });
  await client.connect(transport);
  const isOld = settings.sdk === "@modelcontextprotocol/sdk"; // its second argument is a schema

  async function call(name, args, options = {}) {
    const params = { name, arguments: args };
    const result = await (isOld ? client.callTool(params, undefined, options) : client.callTool(params, options));
    return result.content[0].text;
  }

  async function callAndCancel(name, args) {
    const controller = new AbortController();
    const options = { signal: controller.signal, onprogress: () => controller.abort("enough") };
    return call(name, args, options).then(
      () => false,
      () => controller.signal.aborted,
    );
  }

  const revision = transport.protocolVersion ?? client.getNegotiatedProtocolVersion?.() ?? null;
  const tools = async () => (await client.listTools()).tools.map((tool) => tool.name);
  return { revision, tools, call, callAndCancel, close: () => client.close() };
}

const journeys = {
  async fixtures(client, gate) {
    const steps = [];
    const onprogress = () => steps.push(client.call("step", { gate }));
    const walked = await client.call("walk", { gate, steps: 3 }, { onprogress });
    await Promise.all(steps);
    return {
      said: await client.call("greet", { name: "Ada" }),
      walked,
      steps: steps.length,
      ended: await client.callAndCancel("hang", { gate }),
      server: await client.call("cancelled", { gate }),
    };
  },
  async everything(client) {
    const forAnHour = { duration: 3600, steps: 36000 };
    return {
      said: await client.call("echo", { message: "Ada" }),
      ended: await client.callAndCancel("trigger-long-running-operation", forAnHour),
      server: await client.call("echo", { message: "still here" }),
    };
  },
};

async function main(settings) {
  setTimeout(() => {
    console.error("the client waited in vain");
    process.exit(1);
  }, settings.patience * 1000).unref();
  const client = await connect(settings);
  const seen = { revision: client.revision, tools: await client.tools() };
  Object.assign(seen, await journeys[settings.journey](client, settings.gate));
  await client.close();
  console.log(JSON.stringify(seen));
}

process.stdin.once("data", (line) => main(JSON.parse(line)).then(() => process.exit(0)));
