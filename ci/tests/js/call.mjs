// node call.mjs FILE.mjs: reads {name, calls: [[argument, …], …]} as JSON; prints what that export returns for each call.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { pretend } from "./dom.mjs";

pretend();
const module = await import(pathToFileURL(process.argv[2]));
const { name, calls } = JSON.parse(readFileSync(0, "utf8"));
console.log(JSON.stringify(calls.map((call) => module[name](...call))));
