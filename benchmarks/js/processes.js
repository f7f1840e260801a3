// Which program began when, in seconds after the kernel: /proc tells it in hundredths.
const { IOUtils } = Cu.getGlobalForObject(Services);
const read = async path => new TextDecoder().decode(await IOUtils.read(path, { maxBytes: 4096 }));
const processes = {};
for (const path of await IOUtils.getChildren("/proc")) {
  if (/\/\d+$/.test(path)) {
    const stat = await read(path + "/stat").catch(() => "");
    const [, name, rest] = /\((.*)\) (.*)/s.exec(stat) ?? [];
    if (name) {
      const begun = Number(rest.split(" ")[19]) / 100;
      processes[name] = Math.min(begun, processes[name] ?? begun);
    }
  }
}
return { processes, uptime: Number((await read("/proc/uptime")).split(" ")[0]) };
