// Written by `python -m widgets` from front/shared.mjs and front/mask_explorer.mjs; edit those.
const NAME = "mask_explorer";
const TITLE = "What a mask leaves";
const QUESTION = "Which kind of mask makes a hidden token hard to copy from the slot before or after?";
const PALETTE = {"image": "#E69F00", "clip": "#0072B2", "joint": "#009E73", "moae": "#CC79A7", "hidden": "#B0B0B0", "visible": "#222222", "floor": "#7F7F7F", "scratch": "#D55E00", "pretrained": "#56B4E9"};
const EXPERTS = ["#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#999999"];
const RECORDED = {"dials":[{"key":"what","label":"Input","kind":"choice","options":["clip","image"],"value":"clip","labels":["a clip","an image"]},{"key":"kind","label":"Mask","kind":"choice","options":["random","frame","tube"],"value":"tube"},{"key":"ratio","label":"Hidden share","kind":"steps","options":[0.3,0.5,0.75,0.8,0.9,0.95],"value":0.9,"labels":["30 %","50 %","75 %","80 %","90 %","95 %"]},{"key":"seed","label":"Draw","kind":"steps","options":[0,1,2],"value":0,"labels":["1","2","3"]},{"key":"copies","label":"Mark what can be copied","kind":"flag","options":[false,true],"value":true}],"grids":{"clip":[8,10,10],"image":[1,10,10]},"masks":{"clip random 0.3 0":"MAwwGPhcgXICBZFDMrCQLUgAzxQyglAIujgA0KAUBSK4A7RgIUpCCCByAIgC4a8AAOIkIgRSJchCKRga4ATIQAgcTkkjQMgERkGIpZQJSAaKhyECAEERSonAWUJYEgEkkViQDA==","clip random 0.3 1":"SAAFCHFKMEiMAsYTIMBDliA6ADyIwCK0kUAIS0EJi4ECVAoGEbAgkAKEzhwAwyAEgECXBKgREKLA1CUJRgRvUp7EQSahZ5MMAGAADIAAAEMCr4kcjTTbDARhEARcgEDSKHjyAQ==","clip random 0.3 2":"AUBIHxFAAAQShSTQ4gmgJORIJJiS4ojBFNBmBGQjsGYEsDAUZQQRrEQiRGqFYLLGEJALMCRCBwjAIlJICC9xsXAbQJIAIBikIlyAAbBIYBSUAgLkCSFRAqRJA1JiTLIBBJAChQ==","clip random 0.5 0":"ur4ynvhcwXJDBZdDM/qYL+1Bz5f60tQ4uzo02LwWJWe4Y7Zi51pHSCByDIqK4e8ECeYks8R6NepCPRxa6GXISsldTusrXOsOzsOI7fQJ3B6K1y0rjXMRSsvQeWrZHgsm0VjwPw==","clip random 0.5 1":"akcPiHVK9MjtAtaTNMBDlyA+Qv2L4C+9kVMIa2Np25EyVD6Okb3j2PbFzvzB02SNjECfZLg3EKLE1LcJRhRv9p7cwyepZ/NfUmImTJgEKXfC76tdrTXfTsdpEUxchGPaqXrzBw==","clip random 0.5 2":"U0huvxfAA4Rap2bw/gn6JuxcpfiT54zhNPn2ROR/sPYMsLZ1ZS2ZrMeyVGrFcfLmnpCLPzVKZ8jso1p8iK/xuXC7RLuCM1ikolyAp7LIYJ28JiLmCTHTMr5LI9tz3LYlBJAGnw==","clip random 0.75 0":"vv+63vv8zf9zj5/n8/6f//3h35f/1t34/7r/2/6ftff49/fr/3//7/HzDK7/4e8Gj+Zst+//f+vC/75/6P3Ifv39z/+7fesO7/O47fZb3f/6172r7Xvzf+vcfW79nzuu8Vv/fw==","clip random 0.75 1":"e//fyndb9Nj9//a/9dZj1zB/8v3v/G+/2df4a+N5/58y17/e8//r2f/X/v3H3/+9vtS/f7q//K7k3f8P9vd/95///2frd//f9uruXP7dKf/G/7tf/T//zsd/O81/hGPf+f/3lw==","clip random 0.75 2":"//vu/7/7w6Z6/3/0/036Zv7cp/2799/3fvv/7Of/9f6O+/73fT2Z7v+7VnvNe/bn/tjrf7Xab+vv6/99qL/xuXG7brujP9/m/3yWr/7v4f2/5rP3TzXTNv/L//v//f+l/bXO3w==","clip random 0.8 0":"/v/63vv9zf/zj5/38/+f//3h3/f/1t38/7r/2/6/vff+9/fr/3//7/PzDb7/6e8Gr+Zs9+//f+vW//7/+f3Lf//9z/+7ffte7/O47/bb3f/6972r7Xvzf+vcfe79nzvu/V//fw==","clip random 0.8 1":"///f+ndf/Pr///7/99Zj37B/8v3v/G+/2d/4a+N5/5+y97/e///r2//3/v3H//+9vtW/f7r//L/0/f8P9v9/97///2/vd//f9uruXv7dKf/G/7tf/T//z8d/O8//zOPf+f/31w==","clip random 0.8 2":"//vu/7//465+/3/1/036Zv/dp/2799/3fvv/7O//9f6O//7/ff2Z7v+7Vnvde/fv/tnvf7X6b+//7/99rb/7+XG7bvuzP9/2/36Wr/7/6/+/5/P3zz3bNv/L//v//f+l/bXP3w==","clip random 0.9 0":"///73vv/7//7j7//9/+////1////1/////7/+/+///////f7//////v3n7//+//2v//t9+//f/vW//7///3Pf//9z//7f/vf7/+47/bb3//797+//3/7/+/e/f7/v7/u/1//fw==","clip random 0.9 1":"///f/vd//P7/////999/37f//v///P+//d/86/N//5/y97/e///r///3/v/3//+//93//7r//7/1//8P9v///////+/v9////v/u3v/fu//u/7vf/7///+9//8///+///f/33w==","clip random 0.9 2":"//vv/////+5+/3///+377//f9/3////3/v//7e//9//e////ff+f//+/d//df////9vvf/X67///7//9rb/7+XH/bv/3f/////+/7/7/6///9/f///3fN//b//v////t/7fP/w==","clip random 0.95 0":"////3///7//7////9/+////1////////////+//////////////////3v///+///v//t/+/////3//7////v///9z//7f/v/7/+57//7///7/7+////7///f/f/////v/1//fw==","clip random 0.95 1":"/////v9//f//////999/37///v///P+//f////t////29////////////v/3/////9////v//7/1//9//v/////////v///////u3v//v//+/7///////+///8///////f//3w==","clip random 0.95 2":"///v/////+7///////3////f9/3////3////7f///////////f+f//+/9///f////9vvf//7////////v7/7+33/bv////////////7/+/////////3fv//b///////v//ff/w==","clip frame 0.3 0":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAP////////////////////////////////8AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==","clip frame 0.3 1":"AAAAAAAAAAAAAAAAD////////////////wAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAD////////////////wAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==","clip frame 0.3 2":"AAAAAAAAAAAAAAAAD////////////////wAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAD////////////////w==","clip frame 0.5 0":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAP/////////////////////////////////////////////////wAAAAAAAAAAAAAAAA////////////////8AAAAAAAAAAAAAAAAA==","clip frame 0.5 1":"AAAAAAAAAAAAAAAAD/////////////////////////////////AAAAAAAAAAAAAAAAD////////////////wAAAAAAAAAAAAAAAA////////////////8AAAAAAAAAAAAAAAAA==","clip frame 0.5 2":"AAAAAAAAAAAAAAAAD////////////////wAAAAAAAAAAAAAAAA////////////////8AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA/////////////////////////////////w==","clip frame 0.75 0":"////////////////8AAAAAAAAAAAAAAAAP//////////////////////////////////////////////////////////////////////////////////8AAAAAAAAAAAAAAAAA==","clip frame 0.75 1":"AAAAAAAAAAAAAAAAD//////////////////////////////////////////////////////////////////wAAAAAAAAAAAAAAAA/////////////////////////////////w==","clip frame 0.75 2":"/////////////////////////////////wAAAAAAAAAAAAAAAA////////////////8AAAAAAAAAAAAAAAAP/////////////////////////////////////////////////w==","clip frame 0.8 0":"////////////////8AAAAAAAAAAAAAAAAP//////////////////////////////////////////////////////////////////////////////////8AAAAAAAAAAAAAAAAA==","clip frame 0.8 1":"AAAAAAAAAAAAAAAAD//////////////////////////////////////////////////////////////////wAAAAAAAAAAAAAAAA/////////////////////////////////w==","clip frame 0.8 2":"/////////////////////////////////wAAAAAAAAAAAAAAAA////////////////8AAAAAAAAAAAAAAAAP/////////////////////////////////////////////////w==","clip frame 0.9 0":"////////////////////////////////////////////////////////////////////////////////////////////////////////////////////8AAAAAAAAAAAAAAAAA==","clip frame 0.9 1":"///////////////////////////////////////////////////////////////////////////////////wAAAAAAAAAAAAAAAA/////////////////////////////////w==","clip frame 0.9 2":"//////////////////////////////////////////////////////////////////8AAAAAAAAAAAAAAAAP/////////////////////////////////////////////////w==","clip frame 0.95 0":"////////////////////////////////////////////////////////////////////////////////////////////////////////////////////8AAAAAAAAAAAAAAAAA==","clip frame 0.95 1":"///////////////////////////////////////////////////////////////////////////////////wAAAAAAAAAAAAAAAA/////////////////////////////////w==","clip frame 0.95 2":"//////////////////////////////////////////////////////////////////8AAAAAAAAAAAAAAAAP/////////////////////////////////////////////////w==","clip tube 0.3 0":"MAwgGLhcAXICBZBDMwDCAYuFwBcgIFkEMzAMIBi4XAFyAgWQQzMAwgGLhcAXICBZBDMwDCAYuFwBcgIFkEMzAMIBi4XAFyAgWQQzMAwgGLhcAXICBZBDMwDCAYuFwBcgIFkEMw==","clip tube 0.3 1":"SAQNCHFKMEiMAsYTJIBA0IcUowSIwCxhMkgEDQhxSjBIjALGEySAQNCHFKMEiMAsYTJIBA0IcUowSIwCxhMkgEDQhxSjBIjALGEySAQNCHFKMEiMAsYTJIBA0IcUowSIwCxhMg==","clip tube 0.3 2":"AUBoHxVAAAQahSTQ8BQGgfFUAABBqFJNDwFAaB8VQAAEGoUk0PAUBoHxVAAAQahSTQ8BQGgfFUAABBqFJNDwFAaB8VQAAEGoUk0PAUBoHxVAAAQahSTQ8BQGgfFUAABBqFJNDw==","clip tube 0.5 0":"ur4ynvhcwXJDBZdDO6vjKe+FzBckMFl0M7q+Mp74XMFyQwWXQzur4ynvhcwXJDBZdDO6vjKe+FzBckMFl0M7q+Mp74XMFyQwWXQzur4ynvhcwXJDBZdDO6vjKe+FzBckMFl0Mw==","clip tube 0.5 1":"akdPiHVa9MjtAtaTNqR0+IdVr0yO0C1pM2pHT4h1WvTI7QLWkzakdPiHVa9MjtAtaTNqR0+IdVr0yO0C1pM2pHT4h1WvTI7QLWkzakdPiHVa9MjtAtaTNqR0+IdVr0yO0C1pMw==","clip tube 0.5 2":"U0huvxfBA4Rap2bw9TSG6/F8EDhFqnZvD1NIbr8XwQOEWqdm8PU0huvxfBA4Rap2bw9TSG6/F8EDhFqnZvD1NIbr8XwQOEWqdm8PU0huvxfBA4Rap2bw9TSG6/F8EDhFqnZvDw==","clip tube 0.75 0":"vv+63vr8zf9zj5/ne+/7re+vzN/3OPn+d77/ut76/M3/c4+f53vv+63vr8zf9zj5/ne+/7re+vzN/3OPn+d77/ut76/M3/c4+f53vv+63vr8zf9zj5/ne+/7re+vzN/3OPn+dw==","clip tube 0.75 1":"ev/fyndb9Nj9/va/96/9/Kd1v02P3+9r/3r/38p3W/TY/f72v/ev/fyndb9Nj9/va/96/9/Kd1v02P3+9r/3r/38p3W/TY/f72v/ev/fyndb9Nj9/va/96/9/Kd1v02P3+9r/w==","clip tube 0.75 2":"9/vu/7fbw6Z6/3b0/3++7/t9vDpnr/dvT/f77v+328Omev929P9/vu/7fbw6Z6/3b0/3++7/t9vDpnr/dvT/f77v+328Omev929P9/vu/7fbw6Z6/3b0/3++7/t9vDpnr/dvTw==","clip tube 0.8 0":"/v+63vv8zf/zj5/3/+/7re+/zN//OPn/f/7/ut77/M3/84+f9//v+63vv8zf/zj5/3/+/7re+/zN//OPn/f/7/ut77/M3/84+f9//v+63vv8zf/zj5/3/+/7re+/zN//OPn/fw==","clip tube 0.8 1":"+//fyndf/Nj9//a//7/9/Kd1/82P3/9r//v/38p3X/zY/f/2v/+//fyndf/Nj9//a//7/9/Kd1/82P3/9r//v/38p3X/zY/f/2v/+//fyndf/Nj9//a//7/9/Kd1/82P3/9r/w==","clip tube 0.8 2":"//vu/7/7w6Z6/3/0//++7/v/vDpnr/f/T//77v+/+8Omev9/9P//vu/7/7w6Z6/3/0//++7/v/vDpnr/f/T//77v+/+8Omev9/9P//vu/7/7w6Z6/3/0//++7/v/vDpnr/f/Tw==","clip tube 0.9 0":"///73vv/7//7j7//////ve+//v//uPv/////+977/+//+4+//////73vv/7//7j7//////ve+//v//uPv/////+977/+//+4+//////73vv/7//7j7//////ve+//v//uPv//w==","clip tube 0.9 1":"///f/ndf/P7///7////9/+d1/8/v///v////3/53X/z+///+/////f/ndf/P7///7////9/+d1/8/v///v////3/53X/z+///+/////f/ndf/P7///7////9/+d1/8/v///v/w==","clip tube 0.9 2":"//vu////5+5+/3////++7////n7n7/f////77v///+fufv9/////vu////5+5+/3////++7////n7n7/f////77v///+fufv9/////vu////5+5+/3////++7////n7n7/f//w==","clip tube 0.95 0":"////3///7//777///////f///v//vvv//////9///+//+++///////3///7//777///////f///v//vvv//////9///+//+++///////3///7//777///////f///v//vvv//w==","clip tube 0.95 1":"/////vd//f7//////////+93/9/v//////////73f/3+///////////vd//f7//////////+93/9/v//////////73f/3+///////////vd//f7//////////+93/9/v/////w==","clip tube 0.95 2":"///v/////+5+///////+//////7n7///////7//////ufv///////v/////+5+///////+//////7n7///////7//////ufv///////v/////+5+///////+//////7n7////w==","image random 0.3 0":"MAwgGLhcAXICBZBDMA==","image random 0.3 1":"SAQNCHFKMEiMAsYTIA==","image random 0.3 2":"AUBoHxVAAAQahSTQ8A==","image random 0.5 0":"ur4ynvhcwXJDBZdDMA==","image random 0.5 1":"akdPiHVa9MjtAtaTMA==","image random 0.5 2":"U0huvxfBA4Rap2bw8A==","image random 0.75 0":"vv+63vr8zf9zj5/ncA==","image random 0.75 1":"ev/fyndb9Nj9/va/8A==","image random 0.75 2":"9/vu/7fbw6Z6/3b08A==","image random 0.8 0":"/v+63vv8zf/zj5/38A==","image random 0.8 1":"+//fyndf/Nj9//a/8A==","image random 0.8 2":"//vu/7/7w6Z6/3/08A==","image random 0.9 0":"///73vv/7//7j7//8A==","image random 0.9 1":"///f/ndf/P7///7/8A==","image random 0.9 2":"//vu////5+5+/3//8A==","image random 0.95 0":"////3///7//777//8A==","image random 0.95 1":"/////vd//f7/////8A==","image random 0.95 2":"///v/////+5+////8A=="},"still":8,"sheet":{"data":"UklGRogYAABXRUJQVlA4IHwYAACwhgCdASrwAPAAPm0skkakIiIhLfOciIANiWVrULAM8gHb4nTAzD8Gzq8mH+3Kp3tdU9p75e///vn/03rE/tX//9gf/g///1z+kj/w9Dj/vt6v9V7+g+pX/AP+p60npk5APMVNoig5IrGWY3qWJ13/i8wP5/6g/Sy/bn2gESuiUbS1yOkjhjvQCzlSIVpsdHvVW3MsofCyizSIiwbf9MW6X+H0ZHSclxuVBnNUeXMQakBYUBMV57ffRQ22aUYLDbw9ni9F087rF8tv7rKdR5a5UtIclUoF1TCy76yfOLZcJC1wtTHsd4ZPwuA0mSBkr1R7EjW6l8j0KLucnEppbv2tER9pnchVvcRJxzDpVroREMXIDnI+BCbZGVXin8Ecm/pTteCDj5vq+aeLXomUJqzhaPL6OfVwdrKAdhbWS6DzoLVFquQ9QdOEuaTtXH77tkOiDKw5MrNBVMBE6+DZP8dc2i3SFn6kvQG+e0Lw6nowna5mirTI/Z9t9MiE2WlWo8kbIojvDCJLKEjOY56J7VY7TpvaMWHtth1f7yDhrK2205tQ14RMl/WfAAot284tIRXZTCpMzHdYxh3HKHagUCfhyiQM4zlmYYoyb9aVCWWC8gkY42cT2NMk5PQh/yXxdMBOZnL7KszYRHmThjUjnwZVulMathS7qpDP9Ls0vv2tXIngmz1sdPYKVaBCAUL/nLg8hlMYC6ug5dKOKP17+DW2xetpPBaK9Ga4CkK5U1zw+u6G3WrErogtP+QtsDraGjmbQ/F5ZM9UD9XkdEC2ppKqSb67rGb5FEmF1sExlcp19bxH7dWZI13rhvmldZcKFsYZoiiE9P9r3OVY40ny5HgMO3qI3H1RyX7U1bD3BvdG7o4dZU0S1Q24cDSDWvwkhndWx2LFG/bAdHWVx3Wihjln3nolhG9WefRf2mdBREayoSiZq78ryGDKs4b8yyp5W4W6558I0RFQe0smb7ed/UepbIkQWIGv4X9Uo8RY3rWydchkbljJWcSR/HsnrRGDVhzexDlADL4Mw6MiqhyEcubgHsMMDU6k5+yYEUDEiFmVICaoTvcmYEnRNf0Fv811NdGqMRMb+08vT8rh5hUufutZKLUEFuIAIEacHSZi6wlgkuPMb9l/PtIZTbBry/O779WdEVWR/ZKQqYRJg4jigo+lRH47WMJH7GjLzjq/2Yg3nB4c0m/qexK49iJg6pcxWs8ljOa1G+TfJ2/8LXUQU3kXj5jjJ9ptEvkNhmlrArpAKGqV6Ti3Jj/yt52xHNSQQ2DhPqBm+HXRNCrk4CrT44W92yxWn24DtDEt/iMsJhSRAoZGMPKTTbInTX6NvIBQgstldZ2W2A/yZCIRnFsLTOYzHPfnGwas+Ika7OVHnRq8HEv1ep9HZZFcIl1qgcur8NtSEQ2RAQSSSx9m8Oir4Vbi9gsUiIv7nK37mMMnUSgA+zlEf0iv9G/4P4x1BGYQNGL4daYH4sU2Xsje0mhqAW48LYVZznI3+lpvHyXxp7jW+XEHNXiV2enBxe297uGuWvIXbWFiqEgkeuwhhwEhzjoZGj5ntJqOWu0GI85U2jFZdRfVMph8VEKGVK7RFwZ1MLdS/nqQsW6B0b0okZBif8D3dry4hqJMzIVBwtRiDY82LgrZH5v3l/LhacN3Up+e/Dxji9RI5Orb3h3bHbRQ8ep+b5pJFpCtiQtPMeSKBch356D4WncRJJAVZmms1Ts32Dr06M/FfAkYa8i3Oq6r5M5faATILgEKhHwid3TO1VXcl4AZ6QYiLjUx3VOe0rBgR55hBnT5ry8EtAKQDxGEwqxZSBRh0iD304Pw+VbufQU9aOHfnBLqfrei35R1Qxqu5gN7ytRAEbgKjm2G3nnkZ69UbOQzm5rfpLBJ5uuQKZAv5hBFhkNr3Qs3ki51Yd36EqlNx+TGKM+IZW0B7zblEEBFM8AOowpqYbCyTMPbDsGFo4fvPGeYLlQ9Um0xSoj2HQAXw+a35dr5YbH7d6iDqK9Tnm3J/yA2ZxwJK5Om6kCa0q7NAMpjoc7StNCvgGAkCD8GEmxc5uXkjoVqefUCojw1uXRmgigWujj8AT4caBq+ppsS3cWOyeo6EdXRN9KtBeQUfmQO49lw+AtSXf6+hg+l9/LsB2oX24vrI02Gl9F5ofClAD54LPRt57wuCxF2ONvOwy7bVAvYYYyXi9IIFO9U0+vsuBThRYMn6kCUEVk7yjkuooygzyEwytHINj2RaHyWOPTizx3lGUD6YzPSsMkRUdTrSDbVOhrUB0+2Ygd/8OmIHSK1l5YbvCURKScFMSSum3A02A0523YJWRZDOeMS2rftxmuSE0BPr4nu1iuiY8lbBLJ/cZGQeb0Z/qIFQUiouGMUCmGe9tP1DEP+KC2zOwU2IgjPKUHNWpfiKil6v7EvOAr07dzyNthlm1TxZ1MmIhZhEJ+u3uvqAS7niyh1Re2ax1WlT3FouIW3tgACPwhdOZbFwskDiVpACYJunZ7o3AHc0kuvj+gy2/jwZv8KxhNB4KjWoHz+qeIThNXuerbzt8IlpPS4XmeQ0iEHbFfdFGEhnphCguzcqVveGWaLVSDzsvTdXI4i6L3zFwfVxdadi1Pwj4t3cSRy+AJVEIaY67mHc6+GD8CgDdQ3F9iNE5Km9Rw3PmKHly9NG5njFOGka4rnkIR0GO/tCtzsD0ZSfinSCgkFrY9bWDJsIM1kOGJpferjjL4OEL9NGIm1//urHx2rMwqL5Hl4TkRksK2f5Xz8ZA4STARtYv7k6hWv7mJl6E7LuIcA9ske0PPmjJ8orJWeMAy/6Vilm7zyZbGPeKb5790NxNn8KrQE5teGTOvweCuLbeqBcjkR+YWuNMGeOrWx4TTRirZzz2Y9luOIKduER60aa0sjB/GoHUsH7y9Xhgw+Tzt6mQBLxgz0HcAV4yvvszIZWbuVCvB9FnMTrTn1QxH3LG8Kl9+1pTnE/JxKwBvx8ccLckBiLmrUHezz7ksL0/eiicwhXJBpytvJZz5+s8+xJz2TNt8wfErV+XNQEpxiFPz6Ffgj86O7lUOKIH8FmXVppkF5LFQn0yWFX/cxUz9npjzk+zwKtSyWcxOtFrAq/yag2zSoYd4lwypT+62Ljfm6OEhSOurGHOrKeRbY9f+rneUPkNtxhY+1xH5oqk1FsLHDvCdHWeBJoI4tJ3h3cDlXvONn86MaxuRPNtSc1Xe1pqp445r70hvsFS6osFK4YoArOouNdAH1q4lQlInZ35EId2ZquRZ6b2DZWq3I+ou7DoPT1lZjGO7jdYc5mfxZSN/vHB/LF4kL/0Ikchh85KPzEcXE8y/rY+Fc9QfKtmnRQGx5FzqAGCyL6YTRxy/pP1JpD7uBMV8U1fl40WO/YZ4XGD7tgFc8T3+A0KRD5o7icjVho+Rx1xkaehEI6jyp2tdq9w3/9jWbvgoBYRzF4kUUP57KmU0YtJVuZwUMNapYyJKR/CPsrz9VN626A/DQZaksqbCWXMhFXt4kD2Qy1nxJEKt731jHEzLBOnC3toA+VkZfyh6kEeOJFm0fp/73pVofCjGni+Nyd/jar0ACnB6up9lNU/c8kvIMQsqmaX7n+Gze/kCyq74BVrtwHrUxKTrEHmkxv+PzeEVgArKEvEC8YsSLQ6zOz4L49g9K/9d8kQKfH50uNs8ptVkFyrtPavdSI2wE1HdKBReNuC0VOHxVrbxNMy37wBEga9K+WmHoTUlDkjS+i4TyhxGQEjXm88lFNEg11Y+XmUipunfKcPUsU4zCmQ7j+y9WpdQNNMHz8TEyHi/fkUexTrWHcmPIS0wKFR+gBXYP3fmvE40oaKLar+k+FuaoRGbM66KJUdJkeMzXcMItZHnsBYP9U3PLBwcDNq8ZD5Y7+h3asFQGPGXChfr5yl7RmCjVnHzPIK1Mg3udoWXecMwC7f4xZQFrOZR+QcPYQyo1v8B4PaLtGZKFQnAMfUSh3rK7XLAACIvo+iwoZXaHz08N/NZ6el6JbN1puDbOZPYKxQONuD6f13iFFi2V8VdNGL+Pl+iFm+L0RI0YcXGq4Dy3v1frjJbjDblvRO1X/vlPMZO8gIMPLbmXOLPwmda0dRgO9axsVR4EGl1bx/ELgpI3hdEccO/RX4USnWCaxU3t8TGl17A2OE/9mq7QFK/YSg7c3MOFaUHX3Y9behwkr7rhbzK5CX6D9sewxS5A6PWK7t8PnLMJ9I5QYY8M4+QhSh2TUeXu8DaZs8ghECYXr0AHxHAzDZt6IHdbWVrU75INO7sE0Jc22fvRnTd6KN7xdxChEfJQC1IXTRG4cg7IptdFtEkk9GuY11ztbkkiS1dedTy0sYZCtvOTnoFE8i4WQxmdLBPyqsBDeWnwsHbb+/ZO4JWM7GedySAFaZ5cpZyezIJxfS/E8Ea5SM9RSMmP8eES5lQbRuWBjHM09YJbTm5cdToKAz0bggsnX3yOL4jYSvDzpT/Ue4mPd56rpDfZaL/7GMQGw7G3oJhLFtZu/VrjJ+vpiKWWk9B7wZhhvoBITigdfnPHVqGInvSlhk9fhfZkBrPZjOhvuL+PcSvMwN0P90gA+ppijJiO/9qE1hJL4eCimj5Qj6u6Q1ME4sBu4d8+trmC4qtEjBwIzhk65XQHyOGuQpSqtrRcJlpCjFBo7JU2ebmiajEwE4g9MkzMLVcthsepTtZhc9IeHr4W5InpvJSRxAF7BpdFpXIy+qF/V4+xQyJ77sG8mKsWwxtdGYvt/H9qHe4uVl+eJ5w/hJ4VqkIJtiarDj7/vOkG06jFzj/r1hueGG+GtMoigmCQ03Fjzbozuj7DSRRkReAT+GMauksneC/B3jfc0JAIkAQMULBAf7wQYgpIlQNuTwqGGU5Hh6hjmtxU4dPjNtzxTxEdr34AcOCRPKkPV4ZLvW7+bs30a7RRYCP5EDl9S9BL+YaL77kMcc8VFhIgid8duAay5jC0y4JbbT3hDHX9toMbJpyty/3Wnzqv256uIgiAXn5rQimoQ+N28P7TjSA72T4Qi3lVliQkZm9/4eGcY3QG1V8wK7vmxHBp73o2OoWhjSo8/gPnwUCJtKDp0PUvR+2Ddbk1hmb4jVR3eSb+/T22WQmCFASeTKjU2Gc42VOvLypBKcdTSo2pzKDcPoXEYutK7AnbEYjkxgGLJhri6paq8u52JNBTHDCegF+Yqbb44nE4r0Ndru15M566e6LDDDqCwd08OI/ACgYstYutYXj1+fvd4tzCWCX01/TLAwsTWIZXN9HIbjHgfIKGi9Rty9fGgxDHmvT0E3R+mytvaG1LDxTuzfONO4aZ35iHt1nbol1Kf1rk37GNmaFufI0gobHCXEuDqqyeV/BaEEaKEy1rCeb9Zlxf8IzorKgBeUyhm3JUhYiZWnLtDujuEa0wYf0G1yRvCttEXKmZiAYggPbAE24hjwI0G3GKibk4A4k1iSi0vS6tREz5lhUd6my9TuUZgjHQEZLHKk7iL+eCe86ke1zp6vW61swyepVgLkmlJeHswW0eBRLAngOENDDj6gDmUUmMp79zwu7UWsLA4B/OCvuMkZTCttYwYn9Q6ZOm4DQ4noAe1MONZj/BRTPZzIOrEFfed8/wKchkRExKDjtl/ZjwRW9+dJ+VfHK7usXTs8A5zaBX5dln9ixkghysymCqLV0pTjFFllUf/3B434V6cfD45vqNrGyY2P0CrgA+d9j2abAWJ4qhc1hmlxY5dWw4K+Gfx9blO9WYk2LyzkgB9gTyvwaqDLw5GWGKkmJRr9d1SrBgLmq01a4mXVBXUivxR4Q9nBXi6L/zbzn3iVT0NLyq3G+7Lcg3vKNacZhGRP1MXqSzPYvL5wzWOU59G4XnPsvDOBfoZAZCMjIEfoApulynf2ZJn2eW2tNNtLnycP/lyCCFs+pfXGMvAgJX14uuvMEG/O49uL8B3kNLQopLh3s7d112khmFSM/aOoXju5S/iUoFPA+42nBd8OxWdEKZhbPwNCGPSA4nlA8lD2ga4sJIw33abzgFSZlAX4pwsE25DUzyJArtjBkilfHuniSnxgVk7ibvNLB/irFjOxLtePMm8w2D1P4PduF7cne2tltwWuhnlgZT0llIxqdXSLl4dBflooszXpcvM4IBBIyePL4FfLC+ED6kMpsR9fsxKXBb3Ayi0oiUOZOP8kz07ITY39ujZbJLSIBrMaUYQOzMMFCcJuZIDMQVP8kFK4ovrJsg/oYdLGqoMcHJfMs5IHezS+1mvTHzRLAa0LxVwQKTCGzKZn7Iuc+Gg9ix9o5jzSqZX8vhhLjoGcWL0UCTJ8InR8FvWgYhy9jbkfz9jjhh03K7PGzpblyQj7r7r/ren76jp6XolpAHFwbA7cGjv7HmxOjsRBiEldrq+LIwVGIy/Hl/TUx4OxHpS8sY1OLWtCIF9ja5hZCEmmeLhGSqrnkbKAAkQTPdWjZTWsmKkvgbZs1bjzRVIijLpMwNFOpWFPWBBUuVhJwFaE3Szex9go2zyR8COzb/Yv4mL0pZauLCBdA9hVgUmVnyh/2sw5HHwTj8l+uwjtCIcUU83TyurnAmFHXm0cpVqqxPvHXHbliEhL4M4vTEYsSremnSAzcV2lX1y9a01HV6UlpRE/ag48KKOFJeTnkgfIY0G2gFPu+9a7mNjA2iEzt3RyIL8081FiFfQkB4vQxCi0Qs4KKpvcICabxUCbVn5cIeRvVWwfAlOclXA0Ltp64JwTPL6EB7WW6bJBgXb8hXQ8xgvToukD9YMI4PZpERzpbHnrnsBFV92UQEb26N3HE5FWffqyITXXTZRXzTUkzjUDZa1eJxWy4WSL2BQc4odYJkHf6/mFz8cu223bbAC3jbNZoQcozYM1ZiRR/hH7LXAxHGSRTFhgoVGFo+BSQzNl5F9sHeRItOMfDt/pyvKfhaCJYj1Y/lADMbQMPDV+UKjd2nV3MUYcs1rAvMP92inrco3a3m1jGAHarw+lTrESfS/vVesYcgr7m3YORe4kKDR2TGqzEVW7hc+SXnyN1NSdjiMDN/XGo9TQRzz6WCaihHMqudIsMv0DGMBuHaaKiq/0kmElp6DfZIHcw8SzA6xWuW/QfVHYxXG6l11ShyotZLTAYf1rAYrpfCqo3Z+vnrHGXIro/Mo4zwgy6VsQqbFRiD9Jku0LcwHItryAawiu/RP8glpiN9ssyD02N78HOREXMARvELFaEpfmcC+Ca0bk0QBO0Ei7KFctgY8yUIHzml1po1tYrR2B/5Hsz7Lv+Gi63sc/gpbQP4aBgmn0d2kn45H3nbOKRrG/y5Iw1bUl3R4xULiqsi6fgb6OklGnCZtBiESNg7H+1qP9cITzrkMGrJTeIUXxNfG8Fv3sfUYPC3Dudvg/2kS4iBaLOxxLxgbDp6IrAaA6KA3AyV0/B7bZngJE5u/17yxqGEEx0OA+FlUNXovNHDlA3eEIsF4Hu9J5+Qz7D3CV1w0FOaE43T7vZVecnbuKeMY9FG3gwMi4oSSfax9uTbS3BJUTecfKJmD8ZjgeMqDWipq8LStAz5ygYuOG1ICffmXzF1Cxnx19oTEOaB6017H7ckdDW/Ufb9MDMP9/h43j9NHzOo1ub8jGa2/vD2b7D905q/rGb1032eSendo4wG4MwU3tEhS9d8HFYdrgnYs8Rvhp/6UBA9ZULmpEfnfALEahsRgQIiZd0ZS2ks1Kb000WhhHNl+GOpwA9zC6shpHdHp0O5ycsvD9wrWpFx3ahLuMlCLixdBwODgB1pEzxLeCq0N4Al+34BNaZnD5KoTVDCk/rgPrYrAiCV/C7LaFqyUKfn8Ly+c/0qZipLAuOokw45lJSylj1tX0nbdlefCRIRRg0u0kn/Ie5Dw/MW3pLNeIhABn3W+lKmn/MgRbBkZWg9LUs661NTgMftLvNtwDR+6j6DjRy+C/ihUsEMb3v3hsx093VoxiZjKKb7ijeaxXw1vX1wMwRLG6rGzKldYk6uV/2dPu42PoFtMhuYZh6PK2WdYE5I2OQvof2Q7gsMg7fvo3Wi+2uXtAeXAixDATdTBVmMwVdJPQpiiDXjST3MDvASMoVUE4MiS9Z/FWRVQSnCN3gfE731iOJky+fLWcRZfwRu2sNdT8Bc/YnwtoYJnMRDi9pAxViQQiFbrd+JvpkL6K4cBmXFd0IBs3NOkgKUdA8PXH6xj9pXzidNmevgxE9/rVPvYxCqY7PnNQxE1vbC0dB57GtLz0xtGbTFYmNYGlQLdMCXOSS9r8Fh2pvMxr2tU7DTBJn1BOwRbNkS9hHpd6HYGsGxvkN+va9RPbalt5U5dPP2DZEVBSov2mxOBjpEhF4ZdHzUIUvdZ9h+hKTbkin72MOp5CIXVEttv8JjbyRZMvSwDHj25BAA","columns":3,"count":9,"width":80,"height":80},"made_from":{}};

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

// Which tokens a mask leaves, and how many of the hidden ones lie beside a visible copy of themselves in time.

/** Mask of the dials as a list of booleans, true = hidden. */
function mask(dials, data) {
  const what = dials.what, [t, rows, columns] = data.grids[what];
  const packed = bytes(data.masks[`${what} ${dials.kind} ${dials.ratio} ${dials.seed}`]);
  return Array.from({ length: t * rows * columns }, (_, n) => Boolean((packed[n >> 3] >> (7 - (n & 7))) & 1));
}

/** Hidden tokens, and those of them that are visible at the same place in the slot before or after. */
function counts(hidden, [t, rows, columns]) {
  const places = rows * columns;
  const copied = hidden.map((is, n) => is && ((n >= places && !hidden[n - places]) || (n + places < t * places && !hidden[n + places])));
  return { hidden: hidden.filter(Boolean).length, copyable: copied.filter(Boolean).length, copied };
}

function draw(page, dials, data) {
  const still = dials.what === "image";
  if (still) dials = { ...dials, kind: "random" };
  const grid = data.grids[dials.what], [t, rows, columns] = grid;
  const hidden = mask(dials, data), found = counts(hidden, grid);
  const across = still ? 1 : page.width < 480 ? 2 : 4, gap = 8, head = 18;
  const side = Math.min(still ? 300 : 240, Math.floor((page.width - gap * (across - 1)) / across));
  const slots = Array.from({ length: t }, (_, slot) => {
    const x = (slot % across) * (side + gap), y = Math.floor(slot / across) * (side + head + gap) + head, p = side / rows;
    const covers = [];
    for (let place = 0; place < rows * columns; place++) {
      const n = slot * rows * columns + place;
      if (!hidden[n]) continue;
      const left = x + (place % columns) * p, top = y + Math.floor(place / columns) * p;
      covers.push(h("rect", { x: left, y: top, width: p + 0.3, height: p + 0.3, fill: page.dark ? "#3c3c40" : "#c9c9c6" }));
      if (dials.copies && found.copied[n]) {
        covers.push(h("circle", { cx: left + p / 2, cy: top + p / 2, r: Math.max(1.6, p * 0.16), fill: page.dark ? "#E69F00" : "#8a3b00" }));
      }
    }
    return h("g", {}, words(x, y - 5, still ? "one image" : `slot ${slot + 1}`, { class: "small" }),
      cell(data.sheet, still ? data.still : slot, x, y, side), covers);
  });
  const visible = hidden.length - found.hidden, share = found.hidden ? found.copyable / found.hidden : 0;
  const told = `${visible} of ${hidden.length} tokens stay visible, ${found.hidden} are hidden.` + (still
    ? " A still has no neighbour in time to copy from."
    : ` Of the hidden ones ${found.copyable} (${percent(share)}) are visible at the same place one slot earlier or later.`);
  return {
    node: picture(page, Math.ceil(t / across) * (side + head + gap), slots), told, off: still ? ["kind", "copies"] : found.copyable ? [] : ["copies"],
    alt: `${still ? "A drawn face" : `A drawn clip as ${t} time slots`} under a ${dials.kind} mask of ratio ${dials.ratio}, hidden tokens grey. ${told}`,
    note: still ? "Frame and tube masks need time: an image has one slot." : "A dot marks a hidden token that a visible neighbour in time gives away.",
  };
}

export { counts, mask };
export default explorer({ draw });
