// Written by `python -m widgets` from front/shared.mjs and front/transfer_explorer.mjs; edit those.
const NAME = "transfer_explorer";
const TITLE = "When does joint training hurt the clips?";
const QUESTION = "Which dials move the difference, and is any recorded cell clearly below zero?";
const PALETTE = {"image": "#E69F00", "clip": "#0072B2", "joint": "#009E73", "moae": "#CC79A7", "hidden": "#B0B0B0", "visible": "#222222", "floor": "#7F7F7F", "scratch": "#D55E00", "pretrained": "#56B4E9"};
const EXPERTS = ["#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#999999"];
const RECORDED = {"dials":[{"key":"pair","label":"Difference","kind":"choice","options":["joint","compute","moae","repair"],"value":"joint","labels":["joint training − clips alone, equal clip updates","joint training − clips alone, equal compute","experts (MoAE) − clips alone, equal clip updates","experts (MoAE) − joint training"],"wide":true},{"key":"clips","label":"Training clips","kind":"choice","options":["any","200","400","600","1600","1800"],"value":"any"},{"key":"sequence","label":"Clips that need their order","kind":"choice","options":["any","0.1","0.35","0.8"],"value":"any"},{"key":"init","label":"Start","kind":"choice","options":["any","random","shipped"],"value":"any"},{"key":"ratio","label":"Stills per clip","kind":"choice","options":["any","1","4","8"],"value":"any"},{"key":"noise","label":"Label noise of the stills","kind":"choice","options":["any","default","heavy","none"],"value":"any"},{"key":"shift","label":"Look of the stills","kind":"choice","options":["any","none","photos"],"value":"any"},{"key":"weight","label":"Weight of the still loss","kind":"choice","options":["any","0.1","0.3","0.5","1","2","3","8"],"value":"any"},{"key":"schema","label":"Classes of the stills","kind":"choice","options":["any","merged","same","split"],"value":"any"},{"key":"size","label":"Size of the model","kind":"choice","options":["any","nano","nano_narrow","nano_wide"],"value":"any"}],"cells":[{"study":"screening","factors":{"clips":"200","sequence":"0.1","init":"random","ratio":"1","noise":"none","shift":"none","weight":"0.3","schema":"same","size":"nano"},"differences":{"joint":{"value":7.94,"seeds":2,"low":2.87,"high":13.78},"compute":{"value":4.75,"seeds":2,"low":3.76,"high":5.77},"moae":{"value":7.19,"seeds":2,"low":-2.14,"high":15.5},"repair":{"value":-0.75,"seeds":2,"low":-15.74,"high":12.5}}},{"study":"screening","factors":{"clips":"200","sequence":"0.1","init":"random","ratio":"4","noise":"heavy","shift":"photos","weight":"0.3","schema":"merged","size":"nano"},"differences":{"joint":{"value":2.06,"seeds":2,"low":-5.76,"high":9.05},"compute":{"value":-8.56,"seeds":2,"low":-37.58,"high":24.83},"moae":{"value":2.5,"seeds":2,"low":-16.3,"high":19.12},"repair":{"value":0.44,"seeds":2,"low":-10.55,"high":10.08}}},{"study":"screening","factors":{"clips":"200","sequence":"0.1","init":"shipped","ratio":"1","noise":"heavy","shift":"photos","weight":"3","schema":"same","size":"nano"},"differences":{"joint":{"value":3.75,"seeds":2,"low":-11.46,"high":17.1},"compute":{"value":-1.75,"seeds":2,"low":-7.68,"high":5.01},"moae":{"value":3.62,"seeds":2,"low":-6.52,"high":12.52},"repair":{"value":-0.12,"seeds":2,"low":-4.52,"high":4.87}}},{"study":"screening","factors":{"clips":"200","sequence":"0.1","init":"shipped","ratio":"4","noise":"none","shift":"none","weight":"3","schema":"merged","size":"nano"},"differences":{"joint":{"value":14.94,"seeds":2,"low":-4.75,"high":32.41},"compute":{"value":4.75,"seeds":2,"low":-16.26,"high":28.28},"moae":{"value":15.88,"seeds":2,"low":9.28,"high":21.94},"repair":{"value":0.94,"seeds":2,"low":-10.22,"high":13.62}}},{"study":"screening","factors":{"clips":"200","sequence":"0.8","init":"random","ratio":"1","noise":"heavy","shift":"none","weight":"3","schema":"merged","size":"nano"},"differences":{"joint":{"value":1.0,"seeds":2,"low":-4.28,"high":5.55},"compute":{"value":-0.25,"seeds":2,"low":-18.84,"high":16.07},"moae":{"value":0.75,"seeds":2,"low":-12.77,"high":12.62},"repair":{"value":-0.25,"seeds":2,"low":-8.7,"high":7.17}}},{"study":"screening","factors":{"clips":"200","sequence":"0.8","init":"random","ratio":"4","noise":"none","shift":"photos","weight":"3","schema":"same","size":"nano"},"differences":{"joint":{"value":4.81,"seeds":2,"low":-2.93,"high":11.33},"compute":{"value":1.5,"seeds":2,"low":-22.34,"high":28.42},"moae":{"value":5.0,"seeds":2,"low":1.41,"high":8.16},"repair":{"value":0.19,"seeds":2,"low":-3.45,"high":4.48}}},{"study":"screening","factors":{"clips":"200","sequence":"0.8","init":"shipped","ratio":"1","noise":"none","shift":"photos","weight":"0.3","schema":"merged","size":"nano"},"differences":{"joint":{"value":3.5,"seeds":2,"low":-9.9,"high":19.02},"compute":{"value":2.06,"seeds":2,"low":-10.61,"high":13.19},"moae":{"value":3.62,"seeds":2,"low":-9.85,"high":19.03},"repair":{"value":0.12,"seeds":2,"low":0.12,"high":0.12}}},{"study":"screening","factors":{"clips":"200","sequence":"0.8","init":"shipped","ratio":"4","noise":"heavy","shift":"none","weight":"0.3","schema":"same","size":"nano"},"differences":{"joint":{"value":12.12,"seeds":2,"low":-13.22,"high":41.39},"compute":{"value":7.69,"seeds":2,"low":5.46,"high":10.25},"moae":{"value":10.88,"seeds":2,"low":-6.96,"high":31.58},"repair":{"value":-1.25,"seeds":2,"low":-9.83,"high":6.26}}},{"study":"screening","factors":{"clips":"1600","sequence":"0.1","init":"random","ratio":"1","noise":"none","shift":"photos","weight":"3","schema":"merged","size":"nano"},"differences":{"joint":{"value":3.38,"seeds":2,"low":-33.89,"high":36.15},"compute":{"value":-3.81,"seeds":2,"low":-13.03,"high":4.36},"moae":{"value":3.62,"seeds":2,"low":-9.9,"high":15.49},"repair":{"value":0.25,"seeds":2,"low":-20.52,"high":23.91}}},{"study":"screening","factors":{"clips":"1600","sequence":"0.1","init":"random","ratio":"4","noise":"heavy","shift":"none","weight":"3","schema":"same","size":"nano"},"differences":{"joint":{"value":5.31,"seeds":2,"low":-16.62,"high":24.04},"compute":{"value":-10.5,"seeds":2,"low":-15.64,"high":-6.21},"moae":{"value":6.25,"seeds":2,"low":-32.62,"high":40.37},"repair":{"value":0.94,"seeds":2,"low":-16.81,"high":16.51}}},{"study":"screening","factors":{"clips":"1600","sequence":"0.1","init":"shipped","ratio":"1","noise":"heavy","shift":"none","weight":"0.3","schema":"merged","size":"nano"},"differences":{"joint":{"value":-0.44,"seeds":2,"low":-2.66,"high":2.1},"compute":{"value":-6.75,"seeds":2,"low":-27.65,"high":16.83},"moae":{"value":0.56,"seeds":2,"low":-27.32,"high":25.04},"repair":{"value":1.0,"seeds":2,"low":-29.42,"high":27.7}}},{"study":"screening","factors":{"clips":"1600","sequence":"0.1","init":"shipped","ratio":"4","noise":"none","shift":"photos","weight":"0.3","schema":"same","size":"nano"},"differences":{"joint":{"value":8.88,"seeds":2,"low":-20.24,"high":33.68},"compute":{"value":-5.06,"seeds":2,"low":-10.35,"high":1.19},"moae":{"value":9.19,"seeds":2,"low":-30.32,"high":43.94},"repair":{"value":0.31,"seeds":2,"low":-10.67,"high":9.95}}},{"study":"screening","factors":{"clips":"1600","sequence":"0.8","init":"random","ratio":"1","noise":"heavy","shift":"photos","weight":"0.3","schema":"same","size":"nano"},"differences":{"joint":{"value":1.31,"seeds":2,"low":-3.03,"high":5.12},"compute":{"value":-5.75,"seeds":2,"low":-10.17,"high":-0.7},"moae":{"value":0.06,"seeds":2,"low":-27.95,"high":24.22},"repair":{"value":-1.25,"seeds":2,"low":-24.91,"high":19.52}}},{"study":"screening","factors":{"clips":"1600","sequence":"0.8","init":"random","ratio":"4","noise":"none","shift":"none","weight":"0.3","schema":"merged","size":"nano"},"differences":{"joint":{"value":15.62,"seeds":2,"low":4.21,"high":25.82},"compute":{"value":1.81,"seeds":2,"low":-10.79,"high":13.08},"moae":{"value":14.94,"seeds":2,"low":-12.05,"high":38.28},"repair":{"value":-0.69,"seeds":2,"low":-15.16,"high":12.04}}},{"study":"screening","factors":{"clips":"1600","sequence":"0.8","init":"shipped","ratio":"1","noise":"none","shift":"none","weight":"3","schema":"same","size":"nano"},"differences":{"joint":{"value":11.12,"seeds":2,"low":-3.18,"high":27.91},"compute":{"value":5.62,"seeds":2,"low":-4.8,"high":14.47},"moae":{"value":11.06,"seeds":2,"low":1.65,"high":22.32},"repair":{"value":-0.06,"seeds":2,"low":-5.96,"high":5.23}}},{"study":"screening","factors":{"clips":"1600","sequence":"0.8","init":"shipped","ratio":"4","noise":"heavy","shift":"photos","weight":"3","schema":"merged","size":"nano"},"differences":{"joint":{"value":1.06,"seeds":2,"low":-14.27,"high":19.05},"compute":{"value":-10.44,"seeds":2,"low":-28.0,"high":9.14},"moae":{"value":1.06,"seeds":2,"low":-27.88,"high":34.22},"repair":{"value":0.0,"seeds":2,"low":-13.41,"high":15.18}}},{"study":"map","factors":{"clips":"200","sequence":"0.35","init":"shipped","ratio":"1","noise":"heavy","shift":"photos","weight":"0.1","schema":"same","size":"nano"},"differences":{"joint":{"value":-0.25,"seeds":2,"low":-18.84,"high":16.07},"moae":{"value":1.94,"seeds":2,"low":-4.74,"high":9.54},"repair":{"value":2.19,"seeds":2,"low":-20.63,"high":28.34}}},{"study":"map","factors":{"clips":"200","sequence":"0.35","init":"shipped","ratio":"1","noise":"heavy","shift":"photos","weight":"0.5","schema":"same","size":"nano"},"differences":{"joint":{"value":2.31,"seeds":2,"low":-5.85,"high":11.61},"moae":{"value":1.88,"seeds":2,"low":0.18,"high":3.36},"repair":{"value":-0.44,"seeds":2,"low":-11.35,"high":9.61}}},{"study":"map","factors":{"clips":"200","sequence":"0.35","init":"shipped","ratio":"1","noise":"heavy","shift":"photos","weight":"2","schema":"same","size":"nano"},"differences":{"joint":{"value":2.31,"seeds":2,"low":-5.85,"high":11.61},"moae":{"value":1.69,"seeds":2,"low":1.01,"high":2.57},"repair":{"value":-0.62,"seeds":2,"low":-9.06,"high":7.16}}},{"study":"map","factors":{"clips":"200","sequence":"0.35","init":"shipped","ratio":"1","noise":"heavy","shift":"photos","weight":"8","schema":"same","size":"nano"},"differences":{"joint":{"value":2.31,"seeds":2,"low":-5.85,"high":11.61},"moae":{"value":1.69,"seeds":2,"low":0.95,"high":2.53},"repair":{"value":-0.62,"seeds":2,"low":-9.06,"high":7.14}}},{"study":"map","factors":{"clips":"600","sequence":"0.35","init":"shipped","ratio":"1","noise":"heavy","shift":"photos","weight":"0.1","schema":"same","size":"nano"},"differences":{"joint":{"value":1.38,"seeds":2,"low":-20.82,"high":26.65},"moae":{"value":0.62,"seeds":2,"low":-20.14,"high":24.29},"repair":{"value":-0.75,"seeds":2,"low":-2.5,"high":0.71}}},{"study":"map","factors":{"clips":"600","sequence":"0.35","init":"shipped","ratio":"1","noise":"heavy","shift":"photos","weight":"0.5","schema":"same","size":"nano"},"differences":{"joint":{"value":0.69,"seeds":2,"low":-20.82,"high":25.19},"moae":{"value":-0.56,"seeds":2,"low":-25.39,"high":27.28},"repair":{"value":-1.25,"seeds":2,"low":-4.22,"high":2.13}}},{"study":"map","factors":{"clips":"600","sequence":"0.35","init":"shipped","ratio":"1","noise":"heavy","shift":"photos","weight":"2","schema":"same","size":"nano"},"differences":{"joint":{"value":0.69,"seeds":2,"low":-20.82,"high":25.19},"moae":{"value":-0.5,"seeds":2,"low":-23.07,"high":24.8},"repair":{"value":-1.19,"seeds":2,"low":-1.93,"high":-0.34}}},{"study":"map","factors":{"clips":"600","sequence":"0.35","init":"shipped","ratio":"1","noise":"heavy","shift":"photos","weight":"8","schema":"same","size":"nano"},"differences":{"joint":{"value":0.69,"seeds":2,"low":-20.82,"high":25.19},"moae":{"value":-0.5,"seeds":2,"low":-24.58,"high":26.48},"repair":{"value":-1.19,"seeds":2,"low":-3.44,"high":1.38}}},{"study":"map","factors":{"clips":"1800","sequence":"0.35","init":"shipped","ratio":"1","noise":"heavy","shift":"photos","weight":"0.1","schema":"same","size":"nano"},"differences":{"joint":{"value":-2.88,"seeds":2,"low":-25.12,"high":22.48},"moae":{"value":-2.06,"seeds":2,"low":-35.02,"high":26.86},"repair":{"value":0.81,"seeds":2,"low":-57.5,"high":51.99}}},{"study":"map","factors":{"clips":"1800","sequence":"0.35","init":"shipped","ratio":"1","noise":"heavy","shift":"photos","weight":"0.5","schema":"same","size":"nano"},"differences":{"joint":{"value":-2.06,"seeds":2,"low":-9.67,"high":4.61},"moae":{"value":-2.06,"seeds":2,"low":-16.43,"high":10.55},"repair":{"value":0.0,"seeds":2,"low":-6.76,"high":5.93}}},{"study":"map","factors":{"clips":"1800","sequence":"0.35","init":"shipped","ratio":"1","noise":"heavy","shift":"photos","weight":"2","schema":"same","size":"nano"},"differences":{"joint":{"value":-2.06,"seeds":2,"low":-9.67,"high":4.61},"moae":{"value":-2.12,"seeds":2,"low":-17.34,"high":11.22},"repair":{"value":-0.06,"seeds":2,"low":-7.67,"high":6.61}}},{"study":"map","factors":{"clips":"1800","sequence":"0.35","init":"shipped","ratio":"1","noise":"heavy","shift":"photos","weight":"8","schema":"same","size":"nano"},"differences":{"joint":{"value":-2.06,"seeds":2,"low":-9.67,"high":4.61},"moae":{"value":-2.06,"seeds":2,"low":-16.43,"high":10.55},"repair":{"value":0.0,"seeds":2,"low":-6.76,"high":5.93}}},{"study":"map without clipping","factors":{"clips":"200","sequence":"0.35","init":"shipped","ratio":"1","noise":"heavy","shift":"photos","weight":"0.1","schema":"same","size":"nano"},"differences":{"joint":{"value":1.68,"seeds":5,"low":-1.63,"high":5.2},"moae":{"value":2.58,"seeds":5,"low":0.53,"high":4.72},"repair":{"value":0.9,"seeds":5,"low":-2.5,"high":4.15}}},{"study":"map without clipping","factors":{"clips":"200","sequence":"0.35","init":"shipped","ratio":"1","noise":"heavy","shift":"photos","weight":"0.5","schema":"same","size":"nano"},"differences":{"joint":{"value":2.4,"seeds":5,"low":-0.86,"high":5.71},"moae":{"value":3.3,"seeds":5,"low":0.78,"high":5.85},"repair":{"value":0.9,"seeds":5,"low":-0.03,"high":1.83}}},{"study":"map without clipping","factors":{"clips":"200","sequence":"0.35","init":"shipped","ratio":"1","noise":"heavy","shift":"photos","weight":"2","schema":"same","size":"nano"},"differences":{"joint":{"value":3.38,"seeds":5,"low":0.11,"high":6.74},"moae":{"value":3.25,"seeds":5,"low":0.07,"high":6.45},"repair":{"value":-0.12,"seeds":5,"low":-1.14,"high":0.91}}},{"study":"map without clipping","factors":{"clips":"200","sequence":"0.35","init":"shipped","ratio":"1","noise":"heavy","shift":"photos","weight":"8","schema":"same","size":"nano"},"differences":{"joint":{"value":-0.03,"seeds":5,"low":-3.74,"high":3.72},"moae":{"value":-0.35,"seeds":5,"low":-3.3,"high":2.63},"repair":{"value":-0.33,"seeds":5,"low":-1.59,"high":0.86}}},{"study":"map without clipping","factors":{"clips":"600","sequence":"0.35","init":"shipped","ratio":"1","noise":"heavy","shift":"photos","weight":"0.1","schema":"same","size":"nano"},"differences":{"joint":{"value":0.6,"seeds":5,"low":-1.08,"high":2.36},"moae":{"value":1.9,"seeds":5,"low":0.22,"high":3.64},"repair":{"value":1.3,"seeds":5,"low":0.16,"high":2.45}}},{"study":"map without clipping","factors":{"clips":"600","sequence":"0.35","init":"shipped","ratio":"1","noise":"heavy","shift":"photos","weight":"0.5","schema":"same","size":"nano"},"differences":{"joint":{"value":0.82,"seeds":5,"low":-1.95,"high":3.8},"moae":{"value":1.12,"seeds":5,"low":-1.27,"high":3.59},"repair":{"value":0.3,"seeds":5,"low":-2.03,"high":2.64}}},{"study":"map without clipping","factors":{"clips":"600","sequence":"0.35","init":"shipped","ratio":"1","noise":"heavy","shift":"photos","weight":"2","schema":"same","size":"nano"},"differences":{"joint":{"value":-0.68,"seeds":5,"low":-3.51,"high":2.18},"moae":{"value":-1.93,"seeds":5,"low":-5.18,"high":1.49},"repair":{"value":-1.25,"seeds":5,"low":-3.08,"high":0.5}}},{"study":"map without clipping","factors":{"clips":"600","sequence":"0.35","init":"shipped","ratio":"1","noise":"heavy","shift":"photos","weight":"8","schema":"same","size":"nano"},"differences":{"joint":{"value":-6.17,"seeds":5,"low":-9.75,"high":-2.54},"moae":{"value":-6.2,"seeds":5,"low":-9.15,"high":-3.04},"repair":{"value":-0.03,"seeds":5,"low":-1.48,"high":1.35}}},{"study":"map without clipping","factors":{"clips":"1800","sequence":"0.35","init":"shipped","ratio":"1","noise":"heavy","shift":"photos","weight":"0.1","schema":"same","size":"nano"},"differences":{"joint":{"value":0.95,"seeds":5,"low":-1.93,"high":4.14},"moae":{"value":0.5,"seeds":5,"low":-3.08,"high":4.02},"repair":{"value":-0.45,"seeds":5,"low":-2.44,"high":1.41}}},{"study":"map without clipping","factors":{"clips":"1800","sequence":"0.35","init":"shipped","ratio":"1","noise":"heavy","shift":"photos","weight":"0.5","schema":"same","size":"nano"},"differences":{"joint":{"value":1.3,"seeds":5,"low":-1.51,"high":4.31},"moae":{"value":0.4,"seeds":5,"low":-2.59,"high":3.45},"repair":{"value":-0.9,"seeds":5,"low":-1.9,"high":0.06}}},{"study":"map without clipping","factors":{"clips":"1800","sequence":"0.35","init":"shipped","ratio":"1","noise":"heavy","shift":"photos","weight":"2","schema":"same","size":"nano"},"differences":{"joint":{"value":-2.08,"seeds":5,"low":-5.06,"high":0.9},"moae":{"value":-1.98,"seeds":5,"low":-4.17,"high":0.26},"repair":{"value":0.1,"seeds":5,"low":-1.25,"high":1.43}}},{"study":"map without clipping","factors":{"clips":"1800","sequence":"0.35","init":"shipped","ratio":"1","noise":"heavy","shift":"photos","weight":"8","schema":"same","size":"nano"},"differences":{"joint":{"value":-5.92,"seeds":5,"low":-8.95,"high":-2.8},"moae":{"value":-5.38,"seeds":5,"low":-8.01,"high":-2.65},"repair":{"value":0.55,"seeds":5,"low":-0.85,"high":1.97}}},{"study":"one dial at a time","factors":{"clips":"400","sequence":"0.35","init":"random","ratio":"1","noise":"default","shift":"photos","weight":"1","schema":"same","size":"nano_narrow"},"differences":{"joint":{"value":0.28,"seeds":5,"low":-2.55,"high":3.06},"moae":{"value":1.12,"seeds":5,"low":-1.55,"high":3.79},"repair":{"value":0.85,"seeds":5,"low":-1.67,"high":3.52}}},{"study":"one dial at a time","factors":{"clips":"400","sequence":"0.35","init":"random","ratio":"1","noise":"default","shift":"photos","weight":"1","schema":"same","size":"nano"},"differences":{"joint":{"value":-1.48,"seeds":5,"low":-3.74,"high":0.97},"moae":{"value":-0.38,"seeds":5,"low":-2.27,"high":1.5},"repair":{"value":1.1,"seeds":5,"low":-2.37,"high":4.44}}},{"study":"one dial at a time","factors":{"clips":"400","sequence":"0.35","init":"random","ratio":"1","noise":"default","shift":"photos","weight":"1","schema":"same","size":"nano_wide"},"differences":{"joint":{"value":3.27,"seeds":5,"low":-0.65,"high":7.34},"moae":{"value":0.82,"seeds":5,"low":-3.46,"high":5.22},"repair":{"value":-2.45,"seeds":5,"low":-5.51,"high":0.43}}},{"study":"one dial at a time","factors":{"clips":"400","sequence":"0.35","init":"shipped","ratio":"1","noise":"default","shift":"photos","weight":"1","schema":"same","size":"nano"},"differences":{"joint":{"value":3.0,"seeds":5,"low":0.15,"high":5.99},"moae":{"value":2.9,"seeds":5,"low":-0.26,"high":5.98},"repair":{"value":-0.1,"seeds":5,"low":-1.52,"high":1.21}}},{"study":"one dial at a time","factors":{"clips":"400","sequence":"0.35","init":"shipped","ratio":"1","noise":"default","shift":"photos","weight":"1","schema":"merged","size":"nano"},"differences":{"joint":{"value":1.93,"seeds":5,"low":-0.28,"high":4.29},"moae":{"value":1.27,"seeds":5,"low":-1.21,"high":3.97},"repair":{"value":-0.65,"seeds":5,"low":-1.67,"high":0.31}}},{"study":"one dial at a time","factors":{"clips":"400","sequence":"0.35","init":"shipped","ratio":"1","noise":"default","shift":"photos","weight":"1","schema":"split","size":"nano"},"differences":{"joint":{"value":2.88,"seeds":5,"low":0.33,"high":5.43},"moae":{"value":2.83,"seeds":5,"low":1.11,"high":4.57},"repair":{"value":-0.05,"seeds":5,"low":-1.22,"high":1.15}}},{"study":"methods","factors":{"clips":"400","sequence":"0.35","init":"shipped","ratio":"1","noise":"default","shift":"photos","weight":"1","schema":"same","size":"nano"},"differences":{"joint":{"value":4.9,"seeds":5,"low":2.5,"high":7.41},"compute":{"value":0.85,"seeds":5,"low":-1.22,"high":3.16},"moae":{"value":4.97,"seeds":5,"low":2.32,"high":7.79},"repair":{"value":0.07,"seeds":5,"low":-1.09,"high":1.38}}},{"study":"confirmation","factors":{"clips":"1600","sequence":"0.35","init":"shipped","ratio":"8","noise":"default","shift":"photos","weight":"1","schema":"same","size":"nano"},"differences":{"joint":{"value":9.79,"seeds":10,"low":7.71,"high":11.82},"compute":{"value":-3.94,"seeds":10,"low":-5.43,"high":-2.28},"moae":{"value":9.69,"seeds":10,"low":7.64,"high":11.78},"repair":{"value":-0.1,"seeds":10,"low":-0.78,"high":0.57}}},{"study":"harm made, no clipping","factors":{"clips":"1800","sequence":"0.35","init":"shipped","ratio":"1","noise":"heavy","shift":"photos","weight":"8","schema":"same","size":"nano"},"differences":{"joint":{"value":-5.91,"seeds":10,"low":-7.23,"high":-4.68},"compute":{"value":-12.88,"seeds":10,"low":-14.75,"high":-10.9},"moae":{"value":-6.91,"seeds":10,"low":-8.43,"high":-5.47},"repair":{"value":-1.0,"seeds":10,"low":-2.16,"high":0.17}}},{"study":"harm made, no clipping","factors":{"clips":"1800","sequence":"0.35","init":"shipped","ratio":"1","noise":"default","shift":"photos","weight":"8","schema":"same","size":"nano"},"differences":{"joint":{"value":2.71,"seeds":10,"low":0.54,"high":4.8},"compute":{"value":-4.25,"seeds":10,"low":-6.24,"high":-2.36},"moae":{"value":2.35,"seeds":10,"low":0.28,"high":4.34},"repair":{"value":-0.36,"seeds":10,"low":-1.4,"high":0.7}}}],"effects":{"joint":[{"name":"noise","value":-5.5,"low":-6.37,"high":-4.63},{"name":"shift","value":-4.86,"low":-5.73,"high":-3.98},{"name":"ratio","value":4.16,"low":3.28,"high":5.03},{"name":"schema","value":-1.77,"low":-2.64,"high":-0.89},{"name":"init","value":1.69,"low":-0.43,"high":3.8},{"name":"weight","value":-0.7,"low":-2.82,"high":1.41},{"name":"sequence","value":0.59,"low":-1.52,"high":2.71},{"name":"clips","value":-0.48,"low":-2.6,"high":1.63}],"compute":[{"name":"noise","value":-5.99,"low":-7.53,"high":-4.45},{"name":"clips","value":-5.63,"low":-6.83,"high":-4.43},{"name":"shift","value":-4.87,"low":-6.41,"high":-3.33},{"name":"sequence","value":3.65,"low":2.45,"high":4.85},{"name":"schema","value":-2.21,"low":-3.75,"high":-0.67},{"name":"init","value":2.12,"low":0.92,"high":3.32},{"name":"ratio","value":-1.62,"low":-3.16,"high":-0.08},{"name":"weight","value":-0.63,"low":-1.83,"high":0.57}],"moae":[{"name":"noise","value":-5.6,"low":-6.43,"high":-4.78},{"name":"shift","value":-4.85,"low":-5.68,"high":-4.03},{"name":"ratio","value":4.4,"low":3.57,"high":5.22},{"name":"init","value":1.95,"low":-0.59,"high":4.48},{"name":"schema","value":-1.29,"low":-2.11,"high":-0.46},{"name":"clips","value":-0.34,"low":-2.87,"high":2.19},{"name":"weight","value":-0.21,"low":-2.74,"high":2.32},{"name":"sequence","value":-0.18,"low":-2.71,"high":2.35}],"repair":[{"name":"sequence","value":-0.77,"low":-1.92,"high":0.38},{"name":"weight","value":0.49,"low":-0.66,"high":1.64},{"name":"schema","value":0.48,"low":-0.67,"high":1.63},{"name":"init","value":0.26,"low":-0.89,"high":1.41},{"name":"ratio","value":0.24,"low":-0.91,"high":1.39},{"name":"clips","value":0.15,"low":-1.0,"high":1.3},{"name":"noise","value":-0.1,"low":-1.25,"high":1.05},{"name":"shift","value":0.01,"low":-1.14,"high":1.16}]},"names":{"clips":"Training clips","sequence":"Clips that need their order","init":"Start","ratio":"Stills per clip","noise":"Label noise of the stills","shift":"Look of the stills","weight":"Weight of the still loss","schema":"Classes of the stills","size":"Size of the model"},"studies":["screening","map","map without clipping","one dial at a time","methods","confirmation","long training","harm made, no clipping"],"made_from":{"transfer_screening":"5d98b16dc08f5144","transfer_map":"d0733c942d3d51b6","transfer_map_unclipped":"5a6970141384c25d","transfer_dials":"7d0d7d13a3974ec5","transfer_methods":"841e22e04c4a9c29","transfer_confirmatory":"13a3020960268e46","transfer_long":"c864a1110690af1d","transfer_harm":"5f96987c772ef906"}};

// Shared by every explorer; `python -m widgets` puts it at the head of each widgets/*.mjs, so that one file is enough.
// An explorer is `explorer({draw})`: dials above, a picture, and a sentence that says what the picture shows.
// Names that come from Python: NAME, TITLE, QUESTION, PALETTE, EXPERTS and RECORDED (with its list of dials).

const SVG = new Set(["svg", "g", "rect", "circle", "line", "path", "polyline", "polygon", "text", "image", "title"]);

/** An HTML or SVG element: h("rect", {x: 1, class: "bar"}, ...children). */
function h(tag, attributes = {}, ...children) {
  const node = SVG.has(tag) ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined).map((child) =>
    typeof child === "number" ? String(child) : child));
  return node;
}

const words = (x, y, text, more = {}) => h("text", { x, y, ...more }, text);
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const scale = (from, to) => (value) => to[0] + ((value - from[0]) / (from[1] - from[0])) * (to[1] - to[0]);
const percent = (share, digits = 0) => `${(100 * share).toFixed(digits)} %`;
const signed = (value, digits = 1) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(digits)}`;

/** Base64 → bytes. */
function bytes(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

const addresses = new Map();
/** A short address for a picture that arrived as base64, so that the page does not hold its text once per use. */
function address(data, type = "image/webp") {
  if (!addresses.has(data)) {
    const known = globalThis.URL?.createObjectURL && globalThis.Blob;
    addresses.set(data, known ? URL.createObjectURL(new Blob([bytes(data)], { type })) : `data:${type};base64,${data}`);
  }
  return addresses.get(data);
}

/** Cell `index` of a sheet of pictures {data, columns, width, height, count}, drawn as a square or box at x, y. */
function cell(sheet, index, x, y, width, height = width, more = {}) {
  const rows = Math.ceil(sheet.count / sheet.columns);
  const column = index % sheet.columns, row = Math.floor(index / sheet.columns);
  return h("svg", { x, y, width, height, preserveAspectRatio: "none",
    viewBox: `${column * sheet.width} ${row * sheet.height} ${sheet.width} ${sheet.height}`, ...more },
  h("image", { href: address(sheet.data), width: sheet.columns * sheet.width, height: rows * sheet.height,
    preserveAspectRatio: "none" }));
}

/** A horizontal axis with ticks and a name below the line y. */
function axis(page, at, y, ticks, name, format = String) {
  const right = at(ticks[ticks.length - 1]), left = at(ticks[0]);
  return h("g", { class: "axis" }, h("line", { x1: left, x2: right, y1: y, y2: y, class: "line" }),
    ticks.map((tick) => [h("line", { x1: at(tick), x2: at(tick), y1: y, y2: y + 4, class: "line" }),
      words(at(tick), y + 17, format(tick), { "text-anchor": "middle", class: "small" })]),
    name ? words((left + right) / 2, y + 34, name, { "text-anchor": "middle", class: "small" }) : null);
}

/** A picture of the page's width; `height` in pixels, so that text keeps its size on a narrow screen. */
function picture(page, height, ...children) {
  return h("svg", { viewBox: `0 0 ${page.width} ${height}`, width: page.width, height }, ...children);
}

const STYLE = `
.s4d { --ink: #1b1b1b; --dim: #585858; --line: #8a8a8a; --soft: #f2f2f0; --edge: #d2d2ce; --focus: #0072B2; --mark: #0072B2;
  --paper: #ffffff; color: var(--ink); background: var(--paper); border: 1px solid var(--edge); border-radius: 8px;
  padding: 12px; max-width: 800px; box-sizing: border-box; font: 14px/1.45 system-ui, sans-serif; margin: 8px 0; }
.s4d[data-dark] { --ink: #ececec; --dim: #b4b4b4; --line: #9a9a9a; --soft: #2a2a2c; --edge: #4a4a4e; --focus: #7cc4f0;
  --mark: #56B4E9; --paper: #1c1c1e; color-scheme: dark; }
.s4d * { box-sizing: border-box; }
.s4d .title { font-weight: 650; margin: 0; font-size: 15px; color: var(--ink); }
.s4d .question { margin: 0 0 10px; color: var(--dim); }
.s4d .dials { display: grid; grid-template-columns: repeat(auto-fit, minmax(138px, 1fr)); gap: 8px 16px; margin: 0 0 10px;
  padding: 10px; background: var(--soft); border-radius: 6px; }
.s4d .dial { min-width: 0; display: flex; flex-direction: column; justify-content: flex-end; }
.s4d .dial.wide { grid-column: 1 / -1; }
.s4d .dial label { display: flex; justify-content: space-between; gap: 8px; color: var(--ink); font-size: 13px; }
.s4d .dial output { font-variant-numeric: tabular-nums; color: var(--dim); white-space: nowrap; }
.s4d .dial input[type=range] { width: 100%; min-height: 24px; margin: 0; accent-color: var(--mark); }
.s4d .dial select { width: 100%; min-height: 30px; font: inherit; color: var(--ink); background: var(--paper);
  border: 1px solid var(--line); border-radius: 4px; }
.s4d .dial.flag { align-self: end; }
.s4d .dial.flag label { justify-content: flex-start; align-items: center; min-height: 30px; }
.s4d .dial input[type=checkbox] { flex: none; width: 18px; height: 18px; accent-color: var(--mark); margin: 0; }
.s4d :focus-visible { outline: 3px solid var(--focus); outline-offset: 2px; }
.s4d .view { overflow: hidden; }
.s4d svg { display: block; max-width: 100%; }
.s4d svg text { fill: var(--ink); font: 13px system-ui, sans-serif; }
.s4d svg text.small { fill: var(--dim); font-size: 12px; }
.s4d svg text.dim { fill: var(--dim); }
.s4d svg text.strong { font-weight: 650; }
.s4d svg .line { stroke: var(--line); stroke-width: 1; }
.s4d svg .faint { stroke: var(--edge); stroke-width: 1; }
.s4d svg .frame { fill: none; stroke: var(--ink); stroke-width: 1.5; }
.s4d svg .mark { fill: var(--mark); }
.s4d .told { margin: 8px 0 0; min-height: 1.45em; }
.s4d .note { margin: 4px 0 0; color: var(--dim); font-size: 12.5px; }
`;

/** Whether the page around `el` is dark: JupyterLab and the book's theme say so; elsewhere the colour of text tells. */
function isDark(el) {
  const lab = document.body?.getAttribute?.("data-jp-theme-light");
  if (lab !== null && lab !== undefined) return lab === "false";
  const root = document.documentElement;
  if (root?.classList?.contains("dark") || root?.getAttribute?.("data-theme") === "dark") return true;
  if (root?.classList?.contains("light") || root?.getAttribute?.("data-theme") === "light") return false;
  const colour = globalThis.getComputedStyle?.(el)?.color?.match(/[\d.]+/g);
  return Boolean(colour) && 0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2] > 140;
}

/** One dial: a labelled control that calls `turned(value)` while it moves and `released()` when it rests. */
function dial(spec, prefix, turned, released) {
  const id = `${prefix}-${spec.key}`;
  const output = h("output", { for: id });
  const kind = `dial${spec.wide ? " wide" : ""}`;
  const told = (value) => spec.labels ? spec.labels[spec.options.indexOf(value)] : `${value}${spec.unit ?? ""}`;
  if (spec.kind === "flag") {
    const box = h("input", { type: "checkbox", id, onchange: () => { turned(box.checked); released(); } });
    return { root: h("div", { class: `${kind} flag` }, h("label", { for: id }, box, spec.label)), input: box,
      show: (value) => { box.checked = Boolean(value); } };
  }
  if (spec.kind === "choice") {
    const select = h("select", { id, onchange: () => { turned(spec.options[Number(select.value)]); released(); } },
      spec.options.map((option, place) => h("option", { value: place }, told(option))));
    return { root: h("div", { class: kind }, h("label", { for: id }, spec.label), select), input: select,
      show: (value) => { select.value = String(spec.options.indexOf(value)); } };
  }
  const slider = h("input", { type: "range", id, min: 0, max: spec.options.length - 1, step: 1,
    oninput: () => turned(spec.options[Number(slider.value)]), onchange: released });
  return { root: h("div", { class: kind }, h("label", { for: id }, h("span", {}, spec.label), output), slider), input: slider,
    show: (value) => {
      slider.value = String(Math.max(0, spec.options.indexOf(value)));
      output.textContent = told(value);
      slider.setAttribute("aria-valuetext", told(value));
    } };
}

let count = 0;
/**
 * The front end of one explorer, as anywidget and MyST's {anywidget} directive expect it.
 * draw(page, dials, data, shown) → {node, alt, told, note?, off?}: a picture, its alt text, a sentence, what cannot be turned now.
 * `shown` is what a kernel computed for exactly these dials, or null: then the recorded states are all there is.
 */
function explorer({ draw }) {
  function render({ model, el }) {
    const data = RECORDED, prefix = `s4d-${NAME}-${++count}`;
    const start = Object.fromEntries(data.dials.map((spec) => [spec.key, spec.value]));
    let dials = { ...start, ...(model.get("dials") ?? {}) };
    const live = Boolean(model.get("live"));
    const view = h("div", { class: "view" }), told = h("p", { class: "told", role: "status" }), note = h("p", { class: "note" });
    const released = () => { model.set("dials", dials); model.save_changes(); };
    const specs = data.dials.filter((spec) => live || !spec.live);
    const knobs = Object.fromEntries(specs.map((spec) => [spec.key, dial(spec, prefix, (value) => {
      dials = { ...dials, [spec.key]: value };
      show();
    }, released)]));
    // Keys belong to the dial that has the focus: to a notebook around it an arrow moves between cells, and d twice deletes one.
    const keep = (event) => { if (!event.ctrlKey && !event.metaKey && !event.altKey) event.stopPropagation(); };
    const root = h("section", { class: "s4d", role: "group", "aria-label": `Explorer: ${TITLE}`, onkeydown: keep }, h("style", {}, STYLE),
      h("p", { class: "title" }, TITLE), h("p", { class: "question" }, QUESTION),
      h("div", { class: "dials" }, Object.values(knobs).map((knob) => knob.root)), view, told, note);
    let width = 640;

    function show() {
      const answer = model.get("shown");
      const fresh = live && answer && JSON.stringify(answer.dials) === JSON.stringify(dials) ? answer : null;
      const page = { width, dark: root.hasAttribute("data-dark"), live };
      const drawn = draw(page, dials, data, fresh);
      drawn.node.setAttribute("role", "img");
      drawn.node.setAttribute("aria-label", drawn.alt);
      view.replaceChildren(drawn.node);
      if (told.textContent !== drawn.told) told.textContent = drawn.told;
      note.textContent = drawn.note ?? "";
      for (const spec of specs) {
        knobs[spec.key].show(dials[spec.key]);
        knobs[spec.key].input.disabled = Boolean(drawn.off?.includes(spec.key));
      }
    }

    function look() {
      const dark = isDark(el);
      if (dark !== root.hasAttribute("data-dark")) {
        root.toggleAttribute("data-dark", dark);
        show();
      }
    }

    const heard = () => { dials = { ...dials, ...model.get("dials") }; show(); };
    model.on("change:dials", heard);
    model.on("change:shown", show);
    el.append(root);
    root.toggleAttribute("data-dark", isDark(el));
    show();
    const resized = globalThis.ResizeObserver && new ResizeObserver(([entry]) => {
      const room = clamp(Math.floor(entry.contentRect.width), 260, 774);
      if (room !== width && entry.contentRect.width > 0) { width = room; show(); }
    });
    resized?.observe(view);
    const themed = globalThis.MutationObserver && new MutationObserver(look);
    for (const node of [document.documentElement, document.body]) {
      themed?.observe(node, { attributes: true, attributeFilter: ["class", "data-theme", "data-jp-theme-light"] });
    }
    const preference = globalThis.matchMedia?.("(prefers-color-scheme: dark)");
    preference?.addEventListener?.("change", look);
    return () => {
      resized?.disconnect();
      themed?.disconnect();
      preference?.removeEventListener?.("change", look);
      model.off?.("change:dials", heard);
      model.off?.("change:shown", show);
    };
  }
  return { render };
}

// Recorded differences between two ways of training, one dot a cell; dials narrow the cells, nothing is interpolated.

/** Whether each cell holds the pair and agrees with every dial that is not "any". */
function matching(dials, data) {
  const asked = Object.keys(data.names).filter((key) => key in dials && dials[key] !== "any");
  return data.cells.map((one) => dials.pair in one.differences && asked.every((key) => one.factors[key] === dials[key]));
}

/** Of the matching cells: how many, how many below zero, mean, lowest, highest. */
function summary(dials, data) {
  const fits = matching(dials, data);
  const found = data.cells.filter((_, place) => fits[place]).map((one) => one.differences[dials.pair].value);
  return { count: found.length, below: found.filter((value) => value < 0).length,
    mean: found.length ? found.reduce((sum, value) => sum + value, 0) / found.length : null,
    low: found.length ? Math.min(...found) : null, high: found.length ? Math.max(...found) : null };
}

/** Heights for dots at sorted places so that none overlaps another: 0, 1, −1, 2, −2 … */
function swarm(places, apart) {
  const taken = [];
  return places.map((x) => {
    for (let step = 0; ; step++) {
      const level = step % 2 ? (step + 1) / 2 : -step / 2;
      if (!taken.some((other) => other.level === level && Math.abs(other.x - x) < apart)) {
        taken.push({ x, level });
        return level;
      }
    }
  });
}

function draw(page, dials, data) {
  const fits = matching(dials, data), found = summary(dials, data);
  const all = data.cells.filter((one) => dials.pair in one.differences);
  // The dots set the scale; an interval of few seeds may leave the picture on either side.
  const reach = Math.max(1, Math.ceil(Math.max(0, ...all.map((one) => 1.15 * Math.abs(one.differences[dials.pair].value))) / 10)) * 10;
  const ticks = [-reach, -reach / 2, 0, reach / 2, reach];
  const at = scale([-reach, reach], [14, page.width - 14]), parts = [];
  let y = 0;
  for (const study of data.studies) {
    const rows = data.cells.map((one, place) => ({ ...one, fits: fits[place] }))
      .filter((one) => one.study === study && dials.pair in one.differences)
      .map((one) => ({ ...one, found: one.differences[dials.pair] })).sort((a, b) => a.found.value - b.found.value);
    if (!rows.length) continue;
    const levels = swarm(rows.map((one) => at(one.found.value)), 13), tall = 13 * (Math.max(...levels) - Math.min(...levels)) + 22;
    const middle = y + 20 + 11 + 13 * Math.max(...levels.map((level) => -level), 0);
    parts.push(words(0, y + 13, `${study}: ${rows.length} ${rows.length === 1 ? "cell" : "cells"}`, { class: "small" }));
    for (const pass of [false, true]) rows.forEach((one, k) => {
      if (one.fits !== pass) return;
      const cx = at(one.found.value), cy = middle + 13 * levels[k];
      const told = Object.entries(one.factors).map(([key, value]) => `${data.names[key] ?? key}: ${value}`).join("; ");
      if (pass && one.found.low !== null) parts.push(h("line", { x1: at(Math.max(-reach, one.found.low)), x2: at(Math.min(reach, one.found.high)), y1: cy, y2: cy, class: "line" }));
      parts.push(h("circle", { cx, cy, r: pass ? 6 : 4.5, fill: pass ? (page.dark ? PALETTE.pretrained : PALETTE.clip) : "none",
        stroke: pass ? (page.dark ? "#0b2233" : "#ffffff") : "var(--line)", "stroke-width": 1 }, h("title", {}, `${signed(one.found.value)} points. ${told}`)));
    });
    y += 20 + tall;
  }
  const bottom = y + 4;
  parts.unshift(h("line", { x1: at(0), x2: at(0), y1: 0, y2: bottom, stroke: PALETTE.scratch, "stroke-width": 2, "stroke-dasharray": "5 4" }));
  if (found.count) parts.push(h("path", { d: `M ${at(found.mean)} ${bottom} l -7 10 h 14 z`, fill: "var(--ink)" }));
  parts.push(axis(page, at, bottom + 12, ticks, "points of DFER WAR", (tick) => tick === 0 ? "0" : signed(tick, 0)));
  y = bottom + 70;
  const effects = data.effects[dials.pair] ?? [];
  if (effects.length) {
    const label = page.width < 480 ? 150 : 210, far = Math.max(1, ...effects.flatMap((e) => [e.value, e.low ?? e.value, e.high ?? e.value].map(Math.abs)));
    const over = scale([-far, far], [label + 10, page.width - 52]);
    parts.push(words(0, y, "main effect of each dial, low → high (screening)", { class: "small" }));
    effects.forEach((effect, k) => {
      const line = y + 22 + 22 * k, turned = dials[effect.name] !== undefined && dials[effect.name] !== "any";
      parts.push(words(0, line + 4, data.names[effect.name], turned ? { class: "strong" } : {}),
        effect.low === null ? null : h("line", { x1: over(effect.low), x2: over(effect.high), y1: line, y2: line, class: "line" }),
        h("line", { x1: over(0), x2: over(0), y1: line - 11, y2: line + 11, class: "faint" }),
        h("circle", { cx: over(effect.value), cy: line, r: 5, fill: "var(--ink)" }),
        words(page.width, line + 4, signed(effect.value), { "text-anchor": "end", class: "small" }));
    });
    y += 22 + 22 * effects.length;
  }
  const told = found.count ? `${found.count} of ${all.length} recorded cells match: ${signed(found.mean)} points on average, from ${signed(found.low)} to ${signed(found.high)}; ${found.below} below zero.`
    : "No recorded cell has all these settings. Set a dial back to any.";
  const fewest = Math.min(...all.map((one) => one.differences[dials.pair].seeds));
  return { node: picture(page, y + 6, parts), told,
    alt: `Dots of recorded differences in points of DFER WAR, a row a study, beside a line at zero. ${told}`,
    note: `Each dot is a trained and recorded cell${fewest === 1 ? ", some from one seed, so that chance alone moves a dot by points" : ""}; a line is a 95 % interval, the triangle the mean of the matching cells.` };
}

export { matching, summary, swarm };
export default explorer({ draw });
